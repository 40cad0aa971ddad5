"""Backup run over a block device or a disk image: reads all of it and sends the blocks that differ from the base.

Blocks of zeros and holes have no chunk. Segments that have not changed are inherited from the base. Unreadable sectors
are stored as zeros and are issues of the report.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import NamedTuple

from cryostore.agent.archive.disk_image import SEGMENT_PREFIX, segment_chunks, segment_name, segment_number
from cryostore.agent.archive.reader import digest_of
from cryostore.agent.backup.resume_note import ResumeNote
from cryostore.agent.backup.run import BackupResult
from cryostore.agent.errors import shown
from cryostore.agent.header import DiskLayout
from cryostore.agent.report import Report
from cryostore.agent.streams.disk_reader import DiskReader, PositionalRead, opened_disk
from cryostore.agent.streams.single_file import SingleFileOptions, SingleFileWriter, opened_writer
from cryostore.agent.upload.object_upload import ObjectUpload, SegmentUpload
from cryostore.agent.upload.sealed_upload import SealedSegment
from cryostore.core.digest import Buffer, sha256
from cryostore.core.limits import MIB
from cryostore.core.threads import Threads, task_result
from cryostore.core.time import Clock, wall_clock
from cryostore.model.chunks import Chunk, LinkChunks, LinkedChunk
from cryostore.model.operation import Call

BLOCK_BYTES = 1 * MIB
SEGMENT_BYTES = 1024 * MIB
THREADS = 4
BLOCKS_AHEAD = 8
LINKS_MAX = 1000
UNREAD_MAX = 1000
ZEROS = bytes(BLOCK_BYTES)


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
        for first in range(0, len(blocks), LINKS_MAX):
            chunks = dict(blocks[first : first + LINKS_MAX])
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
