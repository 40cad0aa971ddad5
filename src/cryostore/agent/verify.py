"""Whether a recovery point can be restored: its catalog is whole, and every byte its files need is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

from cryostore.agent.archive import Archive
from cryostore.agent.entry import NO_DIGEST, Content
from cryostore.agent.errors import DAMAGE
from cryostore.agent.header import DISK, content_name
from cryostore.agent.known_damage import KnownDamage
from cryostore.agent.listing import entries
from cryostore.agent.pieces import ChunkPages, Piece, chunks_of
from cryostore.agent.report import Report
from cryostore.agent.restoring import holes_of
from cryostore.agent.threads import Threads, result
from cryostore.agent.verify_disk import verify_disk
from cryostore.core.errors import KeyUnavailableError
from cryostore.model.restores import Chunk

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


def verify(archive: Archive, report: Report, *, data: bool, damage: KnownDamage | None = None) -> None:
    """Look at every entry; with `data`, read every byte, each chunk once for many files. What is wrong is an issue.

    Without `data`, the chunks in `damage` are wrong. Raises what the store raises if it cannot be asked at all,
    ArchiveDamagedError if the catalog cannot be read.
    """
    if archive.header.kind == DISK:
        verify_disk(archive, report, data=data, damage=damage or KnownDamage())
        return
    pages = ChunkPages(archive)
    with Threads(THREADS, "verify") as threads:
        for window in _windows(archive, report):
            try:
                if data:
                    _read(archive, report, pages, window, threads)
                else:
                    _look_up(archive, report, pages, window, damage or KnownDamage())
            except DAMAGE as error:
                report.issue(window[0].path, error.message)


def _windows(archive: Archive, report: Report) -> Iterator[list[_File]]:
    window: list[_File] = []
    for entry in entries(archive):
        report.entries += 1
        report.current = entry.path
        if not entry.row.is_file:
            continue
        report.files += 1
        report.file_bytes += entry.row.size
        holes = holes_of(entry.extras, entry.row.size)
        data_bytes = entry.row.size - sum(length for _, length in holes)
        if data_bytes:
            window.append(_File(entry.path, entry.content, data_bytes))
        if len(window) == WINDOW_FILES:
            yield window
            window = []
    if window:
        yield window


def _look_up(archive: Archive, report: Report, pages: ChunkPages, files: list[_File], damage: KnownDamage) -> None:
    """See that all chunks are listed, and none of them is known to be damaged."""
    affected: dict[bytes, None] = {}
    for chunk, pieces in chunks_of(pages, files):
        if damage.holds(content_name(pieces[0].wanted.content.object_number), chunk.index):
            affected.update((piece.wanted.path, None) for piece in pieces if not _has_copy(archive, piece))
    for path in affected:
        report.issue(path, DAMAGED)


def _read(archive: Archive, report: Report, pages: ChunkPages, files: list[_File], threads: Threads) -> None:
    under_way: deque[Future[list[_Wrong]]] = deque()
    for chunk, pieces in chunks_of(pages, files):
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
        data = memoryview(archive.get_buffer(chunk))
    except DAMAGE as error:
        return [_Wrong(piece.wanted.path, error.message) for piece in pieces if not _has_copy(archive, piece)]
    except KeyUnavailableError as error:
        return [_Wrong(piece.wanted.path, error.message) for piece in pieces]
    wrong = []
    for piece in pieces:
        content = piece.wanted.content
        if content.digest != NO_DIGEST:
            part = data[piece.chunk_offset : piece.chunk_offset + piece.length]
            if archive.identity(part)[:16] != content.digest:
                wrong.append(_Wrong(piece.wanted.path, "is not what its digest says"))
    return wrong


def _has_copy(archive: Archive, piece: Piece[_File]) -> bool:
    return archive.copy(piece.wanted.content, piece.wanted.data_bytes) is not None
