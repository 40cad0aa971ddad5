"""Backup run over a block device or a disk image: reads all of it and sends the blocks that differ from the base.

Blocks of zeros and holes have no chunk. Segments that have not changed are inherited from the base. Unreadable sectors
are stored as zeros and are issues of the report: `DiskReader` reads a bad block again sector by sector.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from cryostore.agent.archive.disk_image import SEGMENT_PREFIX, segment_chunks, segment_name, segment_number
from cryostore.agent.archive.reader import digest_of
from cryostore.agent.backup.job import ResumeNote
from cryostore.agent.backup.run import BackupResult
from cryostore.agent.errors import SourceError, shown
from cryostore.agent.header import DiskLayout
from cryostore.agent.report import Report
from cryostore.agent.streams.single_file import SingleFileOptions, SingleFileWriter, opened_writer
from cryostore.agent.upload.object_upload import BASE_LINKS_MAX, ObjectUpload, SealedSegment, SegmentUpload
from cryostore.core.digest import Buffer, sha256
from cryostore.core.limits import MIB
from cryostore.core.process_resources import unfilled
from cryostore.core.threads import Threads, task_result
from cryostore.core.time import Clock, wall_clock
from cryostore.model.chunks import Chunk, LinkChunks, LinkedChunk
from cryostore.model.operation import Call

BLOCK_BYTES = 1 * MIB
SEGMENT_BYTES = 1024 * MIB
THREADS = 4
BLOCKS_AHEAD = 8
UNREAD_MAX = 1000
ZEROS = bytes(BLOCK_BYTES)
SECTOR_BYTES = 512
BAD_SECTOR_ERRORS = (errno.EIO, errno.ENODATA, errno.EILSEQ, errno.EREMOTEIO)
"""Errors of a disk for a place that it cannot read. Any other error is a failure of the whole disk."""

PositionalRead = Callable[[int, list[memoryview], int], int]
"""Signature of os.preadv."""


@contextmanager
def opened_disk(path: bytes, preadv: PositionalRead = os.preadv) -> Iterator[DiskReader]:
    """Open a disk for reading. Raises SourceError if it cannot be opened or is of another kind.

    The kind is checked before the open, because opening a FIFO could block, and again after it.
    """
    try:
        _check_kind(os.stat(path), path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise SourceError.of(path, error) from error
    try:
        _check_kind(os.fstat(fd), path)
        yield DiskReader(fd, path, _size(fd, path), preadv)
    finally:
        os.close(fd)


def _check_kind(status: os.stat_result, path: bytes) -> None:
    if stat.S_ISFIFO(status.st_mode):
        raise SourceError(path, "a FIFO is not a disk; use --stdin to back up a stream")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISBLK(status.st_mode):
        raise SourceError(path, "is neither a block device nor a file")


def _size(fd: int, path: bytes) -> int:
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:
        raise SourceError.of(path, error) from error


@dataclass(frozen=True, slots=True)
class DiskReader:
    """An open disk that several threads may read."""

    fd: int
    path: bytes
    size: int
    preadv: PositionalRead

    def next_data(self, offset: int) -> int:
        """Return the offset of the next byte that is not in a hole; the size of the disk if there is none."""
        try:
            return min(os.lseek(self.fd, offset, os.SEEK_DATA), self.size)
        except OSError as error:
            return self.size if error.errno == errno.ENXIO else offset  # a disk without SEEK_DATA has no holes

    def read(self, offset: int, length: int) -> tuple[bytearray, list[tuple[int, int]]]:
        """Return a block, and offset and length of each unreadable part, which is zeros. Raises SourceError."""
        data = unfilled(length)
        view = memoryview(data)
        try:
            self._fill(view, offset)
        except OSError as error:
            if error.errno not in BAD_SECTOR_ERRORS:
                raise SourceError.of(self.path, error) from error
            return data, list(self._read_sectors(view, offset))
        return data, []

    def _read_sectors(self, view: memoryview, offset: int) -> Iterator[tuple[int, int]]:
        bad_from = -1
        for at in range(0, len(view), SECTOR_BYTES):
            part = view[at : at + SECTOR_BYTES]
            try:
                self._fill(part, offset + at)
            except OSError as error:
                if error.errno not in BAD_SECTOR_ERRORS:
                    raise SourceError.of(self.path, error) from error
                part[:] = bytes(len(part))
                bad_from = at if bad_from < 0 else bad_from
                continue
            if bad_from >= 0:
                yield offset + bad_from, at - bad_from
                bad_from = -1
        if bad_from >= 0:
            yield offset + bad_from, len(view) - bad_from

    def _fill(self, view: memoryview, offset: int) -> None:
        while view:
            count = self.preadv(self.fd, [view], offset)
            if not count:
                raise SourceError(self.path, "became shorter while it was read")
            view = view[count:]
            offset += count


def backup_device(
    call: Call,
    options: SingleFileOptions,
    path: bytes,
    report: Report,
    *,
    note: ResumeNote | None = None,
    now: Clock = wall_clock,
    segment_bytes: int = SEGMENT_BYTES,
    preadv: PositionalRead = os.preadv,
) -> BackupResult:
    """Back up a disk and count in `report`.

    Raises SourceError if the disk cannot be opened or fails as a whole, and the errors of the store: then there is no
    recovery point. `segment_bytes` and `preadv` are for tests.
    """
    report.current = options.name
    with opened_disk(path, preadv) as disk:
        size = disk.size
        report.total_bytes = size
        report.entries = report.files = 1
        with opened_writer(call, options, note) as writer, Threads(THREADS, "disk") as threads:
            report.damaged_objects = writer.damaged_count
            run = _DiskRun(writer, disk, report, threads, segment_bytes)
            found = run.send_segments()
            report.sent_bytes = writer.uploader.bytes_sent
            numbers = sorted(map(segment_number, found))
            layout = DiskLayout(size, BLOCK_BYTES, segment_bytes, run.unread[:UNREAD_MAX], numbers, run.marks)
            metadata = {
                "diskIds": json.dumps([shown(options.name)]),
                "sizeBytes": str(size),
                "blockSize": str(BLOCK_BYTES),
                "objectPrefix": SEGMENT_PREFIX,
            }
            return writer.commit(found, size, now(), metadata, disk=layout, issue_count=report.issue_count)


class _Block(NamedTuple):
    """A block that was read. `data` is None for zeros, and for a block that is the `same` as in the base."""

    data: Buffer | None
    same: bool
    unread: list[tuple[int, int]]


class _DiskRun:
    """One run over a disk. `marks` and `unread` are complete when `send_segments` returns."""

    def __init__(
        self, writer: SingleFileWriter, disk: DiskReader, report: Report, threads: Threads, segment_bytes: int
    ) -> None:
        self._writer = writer
        self._disk = disk
        self._report = report
        self._threads = threads
        self._segment_bytes = segment_bytes
        self._old = writer.base.object_checksums() if writer.base else {}
        self._old_layout = self._comparable_layout()
        self.marks: dict[str, bytes] = {}
        """Marks of the sealed segments, by name."""
        self.unread: list[tuple[int, int]] = []
        """Offset and length of each unreadable part of the disk."""

    def _comparable_layout(self) -> DiskLayout | None:
        """Return the layout of the base if its blocks and segments have the same sizes as those of this run."""
        layout = self._writer.base.header.disk if self._writer.base else None
        if not isinstance(layout, DiskLayout):
            return None
        return layout if (layout.block_bytes, layout.segment_bytes) == (BLOCK_BYTES, self._segment_bytes) else None

    def send_segments(self) -> dict[str, bytes]:
        """Read all segments and send the changed ones. Return the checksum of each that has any block, by name."""
        found: dict[str, bytes] = {}
        for number in range(-(-self._disk.size // self._segment_bytes)):
            name = segment_name(number)
            result = self._send_segment(number)
            if isinstance(result, ObjectUpload):
                self._writer.uploader.flush()
                self._mark(name, result.mark())
                result.complete()
                found[name] = result.summary()
            elif result:
                found[name] = self._old[name]
                self._mark(name, self._old_layout.marks.get(name, b"") if self._old_layout else b"")
        if self._old_layout is None:
            self._report.new = 1
        elif found == {name: digest for name, digest in self._old.items() if name.startswith(SEGMENT_PREFIX)}:
            self._report.unchanged = 1
        else:
            self._report.changed = 1
        return found

    def _mark(self, name: str, mark: bytes) -> None:
        if mark:
            self.marks[name] = mark

    def _send_segment(self, number: int) -> SegmentUpload | SealedSegment | bool:
        """Read a segment. Return its upload if it differs from the base, otherwise whether the base has it."""
        old = self._old_blocks(number)
        left = dict(old)
        upload = self._writer.policy.segment(self._writer.call, self._writer.job_id, segment_name(number))
        same: list[int] = []
        any_new = False
        for index, block in self._blocks(number, old):
            for offset, length in block.unread:
                self.unread.append((offset, length))
                self._report.issue(self._disk.path, f"{length} bytes at {offset} cannot be read: stored as zeros")
            if block.data is None and not block.same:
                continue
            left.pop(index, None)
            if block.same:
                same.append(index)
            elif block.data is not None:
                any_new = True
                self._writer.uploader.submit(upload, index, block.data)
        if not any_new and not left:
            return bool(old)
        if not any_new and not same:
            return False  # the whole segment is zeros now
        self._link(upload, [(index, old[index]) for index in same])
        return upload

    def _old_blocks(self, number: int) -> dict[int, Chunk]:
        if self._writer.base is None or self._old_layout is None or segment_name(number) in self._writer.damaged:
            return {}
        return segment_chunks(self._writer.base, self._old_layout, number)

    def _blocks(self, number: int, old: dict[int, Chunk]) -> Iterator[tuple[int, _Block]]:
        """Yield index and block of a segment in order, read and compared a few blocks ahead. Leaves out holes."""
        start = number * self._segment_bytes
        end = min(start + self._segment_bytes, self._disk.size)
        under_way: deque[tuple[int, int, Future[_Block]]] = deque()
        at = start
        try:
            while at < end or under_way:
                if at < end and len(under_way) < BLOCKS_AHEAD:
                    data = self._disk.next_data(at)
                    block_start = min(data - data % BLOCK_BYTES, end)
                    self._count(block_start - at)
                    at = block_start
                    if at < end:
                        length = min(BLOCK_BYTES, end - at)
                        index = (at - start) // BLOCK_BYTES
                        under_way.append(
                            (index, length, self._threads.submit(self._read_block, at, length, old.get(index)))
                        )
                        at += length
                    continue
                index, length, future = under_way.popleft()
                yield index, task_result(future)
                self._count(length)
                self._report.read_bytes += length
        finally:
            for _, _, future in under_way:
                future.cancel()

    def _count(self, length: int) -> None:
        self._report.file_bytes += length

    def _read_block(self, offset: int, length: int, old: Chunk | None) -> _Block:
        data, unread = self._disk.read(offset, length)
        if data == (ZEROS if length == BLOCK_BYTES else bytes(length)):
            return _Block(None, same=False, unread=unread)
        same = old is not None and old.length == length and digest_of(old) == self._identity(data)
        return _Block(None if same else data, same, unread)

    def _identity(self, data: Buffer) -> bytes:
        return self._writer.base.chunk_id(data) if self._writer.base else sha256(data)

    def _link(self, upload: SegmentUpload | SealedSegment, blocks: list[tuple[int, Chunk]]) -> None:
        """Link the blocks that are the same as in the base. Send again those that the store reports as missing."""
        base = self._writer.base
        stored = {chunk.index: chunk for chunk in base.stored_object_chunks(upload.name)} if base and blocks else {}
        for first in range(0, len(blocks), BASE_LINKS_MAX):
            chunks = dict(blocks[first : first + BASE_LINKS_MAX])
            for index, chunk in chunks.items():
                upload.inherit(index, chunk, stored[index])
            linked = [
                LinkedChunk(index=index, length=chunk.length, checksum=chunk.checksum, checksum_algorithm="SHA256")
                for index, chunk in ((index, stored[index]) for index in chunks)
            ]
            answer = self._writer.call.call(
                LinkChunks(backup_job_id=upload.job_id, upload_id=upload.open(), chunks=linked)
            )
            for index in answer.missing:
                assert self._writer.base is not None  # the chunks come from it
                self._writer.uploader.submit(upload, index, self._writer.base.chunk_bytes(chunks[index]))
