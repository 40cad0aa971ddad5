"""Verification of an archive: its listing is whole, and the store has every byte that its files need.

The files of a tree or a stream are checked in windows of many files, so that a chunk that they share is read once. Of
a disk image, all segments are checked block by block. The store is asked for the damage that it knows (`KnownDamage`).

Hard links: all names that an archive lists for one file must state the same file and the same bytes (`LinkCheck`). A
restore writes the file of the first name and links the others to it. Two names may have their bytes in two places: one
of them was moved, and a run stored its file again.
"""

from __future__ import annotations

import hashlib
import stat
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

from cryostore.agent.archive.chunks import CachedChunkPages, ChunkPages
from cryostore.agent.archive.disk_image import disk_layout, segment_chunks, segment_name
from cryostore.agent.archive.files import ContentExtents
from cryostore.agent.archive.listing import ArchiveEntry, archive_entries, block_entries
from cryostore.agent.archive.pieces import Piece, chunks_with_pieces
from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.recovery_points import RecoveryPoint
from cryostore.agent.archive.sparse_layout import data_bytes_of
from cryostore.agent.block import Kind, holes_of
from cryostore.agent.entry import NO_DIGEST, Content
from cryostore.agent.errors import DAMAGE, ArchiveDamagedError
from cryostore.agent.header import DISK, FILESET, STREAM, content_name
from cryostore.agent.report import Report
from cryostore.agent.restore.entry_validation import entry_fault, xattr_fault
from cryostore.client import pages
from cryostore.core.errors import KeyUnavailableError
from cryostore.core.threads import Threads, task_result
from cryostore.model.chunks import Chunk, ListDamagedChunks
from cryostore.model.errors import AccessDeniedException, InvalidRequestException, UnknownOperationException
from cryostore.model.operation import Call

WINDOW_FILES = 50_000
THREADS = 4
IN_FLIGHT_MAX = 8
KNOWN_DAMAGED = "the store reports that its data is damaged or lost"
NOT_ANSWERED = (InvalidRequestException, UnknownOperationException, AccessDeniedException)
"""Answers of a server that is older, or that does not let this caller ask."""
CHUNKS_MAX = 1_000_000
"""At most this many chunks are kept."""
SEQUENCES_MAX = 16
"""The number of chunk sequences that are compared for one file, so that no archive makes a verification read a file
without end. The names of a real file have one sequence for each chunk size and key that its backups used."""
DIFFERS = "is listed as another name of a file that differs"
TOO_MANY_SEQUENCES = f"is listed as another name of a file that is stored in more than {SEQUENCES_MAX} ways"


@dataclass(slots=True)
class KnownDamage:
    """The damaged chunks of a recovery point. `is_known` is False if the store does not answer."""

    is_known: bool = True
    count: int = 0
    _indexes: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def contains(self, object_name: str, index: int) -> bool:
        """Return whether this chunk is damaged."""
        return object_name in self._indexes and index in self._indexes[object_name]

    def add(self, object_name: str, index: int | None) -> None:
        """Note a chunk or, without an index, the metadata of an object."""
        self.count += 1
        if index is not None and self.count <= CHUNKS_MAX:
            self._indexes[object_name].add(index)


def fetch_known_damage(call: Call, point: RecoveryPoint) -> KnownDamage:
    """Ask the store for known damage. An older server, or one that refuses this caller, does not answer."""
    damage = KnownDamage()
    try:
        for chunk in pages.items(call, _damage_request(point)):
            damage.add(chunk.object_name, chunk.chunk_index)
    except NOT_ANSWERED:
        damage.is_known = False
    return damage


def is_damaged(call: Call, point: RecoveryPoint) -> bool | None:
    """Return whether the store knows a damaged chunk of a recovery point; None if it does not answer."""
    try:
        return any(True for _ in pages.items(call, _damage_request(point)))
    except NOT_ANSWERED:
        return None


def _damage_request(point: RecoveryPoint) -> ListDamagedChunks:
    return ListDamagedChunks(
        backup_vault_name=point.backup_vault_name or "", recovery_point_arn=point.recovery_point_arn or ""
    )


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


class _Stated(NamedTuple):
    """What an entry states of its file, apart from the content."""

    kind: int
    size: int
    data_bytes: int


@dataclass(slots=True)
class _LinkedFile:
    """A file with several names: what its first name states, and the results for the other names."""

    stated: _Stated
    content: Content
    faults: dict[bytes, str | None] = field(default_factory=dict)
    """Why a name is not one of this file, by the digest of its chunk sequence."""


class LinkCheck:
    """Compares the names of files with several names. Each content is listed and read at most once."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._pages = CachedChunkPages(archive)  # names are compared in any order
        self._files: dict[tuple[int, int], _LinkedFile] = {}
        self._sequence_digests: dict[tuple[Content, int], bytes] = {}
        self._data_digests: dict[tuple[Content, int], bytes] = {}

    def fault(self, entry: ArchiveEntry) -> str | None:
        """Return why an entry is not another name of an earlier entry, as it is listed; None if all is right.

        Damage is not a fault, because it is an issue of its own.
        """
        row = entry.row
        if row.links < 2 or row.is_directory:
            return None
        try:
            data_bytes = data_bytes_of(row.size, holes_of(entry.extras, row.size)) if row.is_file else 0
        except ArchiveDamagedError:
            return None
        stated = _Stated(stat.S_IFMT(row.mode), row.size, data_bytes)
        file = self._files.get((row.device, row.inode))
        if file is None:
            self._files[row.device, row.inode] = _LinkedFile(stated, entry.content)
            return None
        if stated != file.stated:
            return DIFFERS
        return None if entry.content == file.content else self._content_fault(file, entry.content)

    def _content_fault(self, file: _LinkedFile, content: Content) -> str | None:
        if NO_DIGEST not in (file.content.digest, content.digest):
            return None if file.content.digest == content.digest else DIFFERS
        try:
            return self._sequence_fault(file, content)
        except (*DAMAGE, KeyUnavailableError):
            return None

    def _sequence_fault(self, file: _LinkedFile, content: Content) -> str | None:
        """Compare the chunks, and the bytes if they are cut into other chunks. Raises what reading them raises."""
        first, data_bytes = file.content, file.stated.data_bytes
        if not file.faults:
            file.faults[self._sequence_digest(first, data_bytes)] = None
        sequence = self._sequence_digest(content, data_bytes)
        if sequence not in file.faults:
            if len(file.faults) >= SEQUENCES_MAX:
                return TOO_MANY_SEQUENCES
            file.faults[sequence] = None  # stays if damage ends the reading
            if self._data_digest(first, data_bytes) != self._data_digest(content, data_bytes):
                file.faults[sequence] = DIFFERS
        return file.faults[sequence]

    def _extents(self, content: Content, data_bytes: int) -> Iterator[tuple[Chunk, int, int]]:
        extents = ContentExtents(self._pages, content, data_bytes)
        number = 0
        while (found := extents.chunk(number)) is not None:
            yield found
            number += 1

    def _sequence_digest(self, content: Content, data_bytes: int) -> bytes:
        """Return a digest of the ids of a file's chunks, and of where its bytes begin in the first."""
        key = (content, data_bytes)
        if key not in self._sequence_digests:
            digest = hashlib.sha256()
            for chunk, skipped, _ in self._extents(content, data_bytes):
                digest.update(f"{chunk.checksum} {skipped}\n".encode())
            self._sequence_digests[key] = digest.digest()
        return self._sequence_digests[key]

    def _data_digest(self, content: Content, data_bytes: int) -> bytes:
        key = (content, data_bytes)
        if key not in self._data_digests:
            digest = hashlib.sha256()
            for chunk, skipped, start in self._extents(content, data_bytes):
                digest.update(memoryview(self._archive.chunk_buffer(chunk))[skipped : skipped + data_bytes - start])
            self._data_digests[key] = digest.digest()
        return self._data_digests[key]
