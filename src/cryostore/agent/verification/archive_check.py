"""Verification of an archive: its listing is whole, and the store has every byte that its files need.

The files of a tree or a stream are checked in windows of many files, so that a chunk that they share is read once. Of
a disk image, all segments are checked block by block. Hard links: `link_check`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

from cryostore.agent.archive.chunks import ChunkPages
from cryostore.agent.archive.disk_image import disk_layout, segment_chunks, segment_name
from cryostore.agent.archive.listing import ArchiveEntry, archive_entries, block_entries
from cryostore.agent.archive.pieces import Piece, chunks_with_pieces
from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.sparse_layout import data_bytes_of
from cryostore.agent.block import Kind, holes_of
from cryostore.agent.entry import NO_DIGEST, Content
from cryostore.agent.errors import DAMAGE
from cryostore.agent.header import DISK, FILESET, STREAM, content_name
from cryostore.agent.report import Report
from cryostore.agent.restore.entry_validation import entry_fault, xattr_fault
from cryostore.agent.verification.known_damage import KnownDamage
from cryostore.agent.verification.link_check import LinkCheck
from cryostore.core.errors import KeyUnavailableError
from cryostore.core.threads import Threads, task_result
from cryostore.model.chunks import Chunk

WINDOW_FILES = 50_000
THREADS = 4
IN_FLIGHT_MAX = 8
KNOWN_DAMAGED = "the store reports that its data is damaged or lost"


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    """A file whose bytes are checked."""

    path: bytes
    content: Content
    data_bytes: int


def verify_archive(archive: Archive, report: Report, *, data: bool, damage: KnownDamage | None = None) -> None:
    """Check every entry; with `data`, also read every chunk, once for many files. Each problem is an issue.

    Without `data`, chunks that the store reports as damaged (`damage`) are issues. Raises what the store raises if it
    cannot answer at all, and ArchiveDamagedError if the listing cannot be read.
    """
    if archive.header.kind == DISK:
        _verify_disk_image(archive, report, data=data, damage=damage or KnownDamage())
        return
    pages = ChunkPages(archive)
    with Threads(THREADS, "verify") as threads:
        for window in _windows(archive, report):
            if data:
                _read_chunks(report, _file_checks(archive, report, pages, window), threads)
            else:
                _check_listed(archive, report, pages, window, damage or KnownDamage())
    if archive.header.kind == STREAM and (report.entries, report.files) != (1, 1):
        report.issue(b"", f"the archive of a stream has {report.entries} entries instead of one file")
    counted_by_header = (archive.header.entries, archive.header.files, archive.header.file_bytes)
    if archive.header.kind == FILESET and not report.issue_count and counted_by_header != _counted(report):
        report.issue(b"", f"entries, files and bytes are {_counted(report)}, but the header has {counted_by_header}")


def _counted(report: Report) -> tuple[int, int, int]:
    """Return the counts that the header of an archive has: entries including the root, files, bytes of files."""
    return report.entries + 1, report.files, report.file_bytes


def _windows(archive: Archive, report: Report) -> Iterator[list[_File]]:
    window: list[_File] = []
    links = LinkCheck(archive)
    for block in archive.blocks(report.issue):
        if block.kind == Kind.ROOT:
            for root in block_entries(block):
                if (fault := xattr_fault(root)) is not None:
                    report.issue(b"", fault)
            continue
        for entry in block_entries(block):
            if (file := _file(entry, report)) is not None:
                window.append(file)
            if (fault := links.fault(entry)) is not None:
                report.issue(entry.path, fault)
        if len(window) >= WINDOW_FILES:
            yield window
            window = []
    if window:
        yield window


def _file(entry: ArchiveEntry, report: Report) -> _File | None:
    """Check an entry; return it if it is a file whose bytes are to be checked."""
    row = entry.row
    report.entries += 1
    report.current = entry.path
    report.files += row.is_file
    report.file_bytes += row.size if row.is_file else 0
    if (fault := entry_fault(entry) or xattr_fault(entry)) is not None:
        report.issue(entry.path, fault)
        return None
    data_bytes = data_bytes_of(row.size, holes_of(entry.extras, row.size)) if row.is_file else 0
    return _File(entry.path, entry.content, data_bytes) if data_bytes else None


def _check_listed(archive: Archive, report: Report, pages: ChunkPages, files: list[_File], damage: KnownDamage) -> None:
    """Check that all chunks are listed, and that none is known to be damaged."""
    affected: dict[bytes, None] = {}
    for chunk, pieces in chunks_with_pieces(pages, files, lambda file, reason: report.issue(file.path, reason)):
        if damage.contains(content_name(pieces[0].file.content.object_number), chunk.index):
            affected.update((piece.file.path, None) for piece in pieces if not _has_copy(archive, piece))
    for path in affected:
        report.issue(path, KNOWN_DAMAGED)


class _FileFault(NamedTuple):
    """A file that is not whole, and the reason."""

    path: bytes
    reason: str


_ChunkCheck = tuple[Chunk, Callable[[], list[_FileFault]]]
"""A chunk, and the function that reads it and returns the files with wrong bytes in it."""


def _read_chunks(report: Report, checks: Iterable[_ChunkCheck], threads: Threads) -> None:
    in_flight: deque[Future[list[_FileFault]]] = deque()
    for chunk, check in checks:
        in_flight.append(threads.submit(check))
        report.read_bytes += chunk.length
        if len(in_flight) >= IN_FLIGHT_MAX:
            _report(report, in_flight.popleft())
    while in_flight:
        _report(report, in_flight.popleft())


def _report(report: Report, future: Future[list[_FileFault]]) -> None:
    for fault in task_result(future):
        report.issue(fault.path, fault.reason)


def _file_checks(archive: Archive, report: Report, pages: ChunkPages, files: list[_File]) -> Iterator[_ChunkCheck]:
    for chunk, pieces in chunks_with_pieces(pages, files, lambda file, reason: report.issue(file.path, reason)):
        yield chunk, partial(_check_chunk, archive, chunk, pieces)


def _check_chunk(archive: Archive, chunk: Chunk, pieces: Sequence[Piece[_File]]) -> list[_FileFault]:
    """Return the files with wrong bytes in a chunk. The reader verifies the chunk; small files have digests too."""
    try:
        data = memoryview(archive.chunk_buffer(chunk))
    except DAMAGE as error:
        return [_FileFault(piece.file.path, error.message) for piece in pieces if not _has_copy(archive, piece)]
    except KeyUnavailableError as error:
        return [_FileFault(piece.file.path, error.message) for piece in pieces]
    faults = []
    for piece in pieces:
        content = piece.file.content
        if content.digest != NO_DIGEST:
            part = data[piece.chunk_offset : piece.chunk_offset + piece.length]
            if archive.chunk_id(part)[:16] != content.digest:
                faults.append(_FileFault(piece.file.path, "does not match its digest"))
    return faults


def _has_copy(archive: Archive, piece: Piece[_File]) -> bool:
    return archive.sound_copy(piece.file.content, piece.file.data_bytes) is not None


def _verify_disk_image(archive: Archive, report: Report, *, data: bool, damage: KnownDamage) -> None:
    """Check all segments of a disk; each problem is an issue. Raises as `verify_archive` does."""
    layout = disk_layout(archive)
    path = b""
    found = list(islice(archive_entries(archive), 2))
    for entry in found:
        path = entry.path
        report.entries += 1
        report.files += entry.row.is_file
    if len(found) != 1 or not found[0].row.is_file or found[0].row.size != layout.disk_bytes:
        report.issue(path, f"the archive of a disk of {layout.disk_bytes} bytes does not have one file of that size")
    with Threads(THREADS, "verify") as threads:
        for number in layout.segments:
            try:
                blocks = segment_chunks(archive, layout, number)
            except DAMAGE as error:
                report.issue(path, error.message)
                continue
            if data:
                _read_chunks(report, _block_checks(archive, path, blocks), threads)
            else:
                for index in blocks:
                    if damage.contains(segment_name(number), index):
                        offset = number * layout.segment_bytes + index * layout.block_bytes
                        report.issue(path, f"the store reports that the block at byte {offset} is damaged or lost")
            report.file_bytes = min((number + 1) * layout.segment_bytes, layout.disk_bytes)
    report.file_bytes = layout.disk_bytes


def _block_checks(archive: Archive, path: bytes, blocks: dict[int, Chunk]) -> Iterator[_ChunkCheck]:
    for _, chunk in sorted(blocks.items()):
        yield chunk, partial(_check_block, archive, path, chunk)


def _check_block(archive: Archive, path: bytes, chunk: Chunk) -> list[_FileFault]:
    try:
        archive.chunk_buffer(chunk)
    except (*DAMAGE, KeyUnavailableError) as error:
        return [_FileFault(path, error.message)]
    return []
