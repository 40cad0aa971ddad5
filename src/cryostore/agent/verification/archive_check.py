"""Whether a recovery point can be restored: its catalog is whole, and every byte its files need is there."""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

from cryostore.agent.archive.chunk_pages import ChunkPages
from cryostore.agent.archive.listing import ArchiveEntry, block_entries
from cryostore.agent.archive.pieces import Piece, chunks_with_pieces
from cryostore.agent.archive.reader import Archive
from cryostore.agent.block import Kind, holes_of
from cryostore.agent.entry import NO_DIGEST, Content
from cryostore.agent.errors import DAMAGE
from cryostore.agent.header import DISK, FILESET, STREAM, content_name
from cryostore.agent.report import Report
from cryostore.agent.restore.entry_validation import attributes_fault, entry_fault
from cryostore.agent.verification.disk_check import verify_disk_image
from cryostore.agent.verification.known_damage import KnownDamage
from cryostore.core.errors import KeyUnavailableError
from cryostore.core.threads import Threads, result
from cryostore.model.chunks import Chunk

WINDOW_FILES = 50_000
THREADS = 4
UNDER_WAY_MAX = 8
DAMAGED = "the store knows that its data is damaged or lost"


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    """A file whose bytes are looked for."""

    path: bytes
    content: Content
    data_bytes: int


def verify_archive(archive: Archive, report: Report, *, data: bool, damage: KnownDamage | None = None) -> None:
    """Look at every entry; with `data`, read every byte, each chunk once for many files. What is wrong is an issue.

    Without `data`, the chunks in `damage` are wrong. Raises what the store raises if it cannot be asked at all,
    ArchiveDamagedError if the catalog cannot be read.
    """
    if archive.header.kind == DISK:
        verify_disk_image(archive, report, data=data, damage=damage or KnownDamage())
        return
    pages = ChunkPages(archive)
    with Threads(THREADS, "verify") as threads:
        for window in _windows(archive, report):
            if data:
                _read(archive, report, pages, window, threads)
            else:
                _look_up(archive, report, pages, window, damage or KnownDamage())
    if archive.header.kind == STREAM and (report.entries, report.files) != (1, 1):
        report.issue(b"", f"the archive of a stream has {report.entries} entries instead of one file")
    said = (archive.header.entries, archive.header.files, archive.header.file_bytes)
    if archive.header.kind == FILESET and not report.issue_count and said != _counted(report):
        report.issue(b"", f"entries, files and bytes are {_counted(report)}, and its header says {said}")


def _counted(report: Report) -> tuple[int, int, int]:
    """What the header of an archive counts: entries, the root among them, files and their bytes."""
    return report.entries + 1, report.files, report.file_bytes


def _windows(archive: Archive, report: Report) -> Iterator[list[_File]]:
    window: list[_File] = []
    links: dict[tuple[int, int], int] = {}
    for block in archive.blocks(report.issue):
        if block.kind == Kind.ROOT:
            for root in block_entries(block):
                if (fault := attributes_fault(root)) is not None:
                    report.issue(b"", fault)
            continue
        for entry in block_entries(block):
            if (file := _file(entry, report)) is not None:
                window.append(file)
            if _is_other_link(links, entry):
                report.issue(entry.path, "is said to be another name of a file that is not the same")
        if len(window) >= WINDOW_FILES:
            yield window
            window = []
    if window:
        yield window


def _file(entry: ArchiveEntry, report: Report) -> _File | None:
    """Look at an entry. Answers it, if it is a file whose bytes are to be looked for."""
    row = entry.row
    report.entries += 1
    report.current = entry.path
    report.files += row.is_file
    report.file_bytes += row.size if row.is_file else 0
    if (fault := entry_fault(entry) or attributes_fault(entry)) is not None:
        report.issue(entry.path, fault)
        return None
    data_bytes = row.size - sum(length for _, length in holes_of(entry.extras, row.size)) if row.is_file else 0
    return _File(entry.path, entry.content, data_bytes) if data_bytes else None


def _is_other_link(links: dict[tuple[int, int], int], entry: ArchiveEntry) -> bool:
    """Whether an entry that is said to be one with an earlier one is another: a restore makes them one."""
    row = entry.row
    if row.links < 2 or row.is_directory:
        return False
    seen = hash((stat.S_IFMT(row.mode), row.size, entry.content))
    return links.setdefault((row.device, row.inode), seen) != seen


def _look_up(archive: Archive, report: Report, pages: ChunkPages, files: list[_File], damage: KnownDamage) -> None:
    """See that all chunks are listed, and none of them is known to be damaged."""
    affected: dict[bytes, None] = {}
    for chunk, pieces in chunks_with_pieces(pages, files, lambda file, reason: report.issue(file.path, reason)):
        if damage.holds(content_name(pieces[0].wanted.content.object_number), chunk.index):
            affected.update((piece.wanted.path, None) for piece in pieces if not _has_copy(archive, piece))
    for path in affected:
        report.issue(path, DAMAGED)


def _read(archive: Archive, report: Report, pages: ChunkPages, files: list[_File], threads: Threads) -> None:
    under_way: deque[Future[list[_Wrong]]] = deque()
    for chunk, pieces in chunks_with_pieces(pages, files, lambda file, reason: report.issue(file.path, reason)):
        under_way.append(threads.submit(_look, archive, chunk, pieces))
        report.read_bytes += chunk.length
        if len(under_way) >= UNDER_WAY_MAX:
            _judge(report, under_way.popleft())
    while under_way:
        _judge(report, under_way.popleft())


class _Wrong(NamedTuple):
    """A file that is not whole, and why."""

    path: bytes
    reason: str


def _judge(report: Report, future: Future[list[_Wrong]]) -> None:
    for wrong in result(future):
        report.issue(wrong.path, wrong.reason)


def _look(archive: Archive, chunk: Chunk, pieces: Sequence[Piece[_File]]) -> list[_Wrong]:
    """The files of a chunk that are not whole. The store has verified it; small files have digests of their own."""
    try:
        data = memoryview(archive.chunk_buffer(chunk))
    except DAMAGE as error:
        return [_Wrong(piece.wanted.path, error.message) for piece in pieces if not _has_copy(archive, piece)]
    except KeyUnavailableError as error:
        return [_Wrong(piece.wanted.path, error.message) for piece in pieces]
    wrong = []
    for piece in pieces:
        content = piece.wanted.content
        if content.digest != NO_DIGEST:
            part = data[piece.chunk_offset : piece.chunk_offset + piece.length]
            if archive.chunk_id(part)[:16] != content.digest:
                wrong.append(_Wrong(piece.wanted.path, "is not what its digest says"))
    return wrong


def _has_copy(archive: Archive, piece: Piece[_File]) -> bool:
    return archive.copy(piece.wanted.content, piece.wanted.data_bytes) is not None
