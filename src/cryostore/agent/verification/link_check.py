"""Check of hard links: all names that an archive lists for one file state the same file and the same bytes.

A restore writes the file of the first name and links the others to it. Two names may have their bytes in two places:
one of them was moved, and a run stored its file again.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from cryostore.agent.archive.chunks import CachedChunkPages
from cryostore.agent.archive.files import ContentExtents
from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.sparse_layout import data_bytes_of
from cryostore.agent.block import holes_of
from cryostore.agent.entry import NO_DIGEST, Content
from cryostore.agent.errors import DAMAGE, ArchiveDamagedError
from cryostore.core.errors import KeyUnavailableError
from cryostore.model.chunks import Chunk

SEQUENCES_MAX = 16
"""The number of chunk sequences that are compared for one file, so that no archive makes a verification read a file
without end. The names of a real file have one sequence for each chunk size and key that its backups used."""
DIFFERS = "is listed as another name of a file that differs"
TOO_MANY_SEQUENCES = f"is listed as another name of a file that is stored in more than {SEQUENCES_MAX} ways"


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
