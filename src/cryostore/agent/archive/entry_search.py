"""Search for entries by name, kind, time and size, in one archive after another.

Archives of one resource share most chunks of their listings. Matches are kept by chunk, so a shared chunk is searched
once.
"""

from __future__ import annotations

import re
import stat
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from cryostore.agent.archive.listing import ArchiveEntry, ArchiveTree, block_entry
from cryostore.agent.archive.reader import Archive, digest_of
from cryostore.agent.block import Block, Kind, decode
from cryostore.agent.entry import Row
from cryostore.agent.source.walk import join
from cryostore.model.chunks import Chunk

FOUND_HELD_MAX = 100_000
READ_WHOLE_MAX = 16
"""A listing of at most this many chunks is read whole: a binary search for a folder would cost as much."""
KINDS: dict[str, int] = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "p": stat.S_IFIFO,
    "b": stat.S_IFBLK,
    "c": stat.S_IFCHR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryCriteria:
    """What to search for. A pattern with a slash matches whole paths, any other matches names.

    `*` matches any bytes, `?` one byte, `[...]` one byte of a set. In a pattern for paths they match slashes too.
    """

    pattern: bytes
    newer_ns: int | None = None
    larger_bytes: int | None = None
    kind: Literal["f", "d", "l", "p", "b", "c"] | None = None

    def matches_path(self, root: bytes, path: bytes, name: bytes) -> bool:
        """Return whether the pattern matches the entry `name` in the directory at `path`."""
        if b"/" not in self.pattern:
            return fnmatchcase(name, self.pattern)
        below = join(path, name)
        return fnmatchcase(root.rstrip(b"/") + b"/" + below, self.pattern) or fnmatchcase(
            b"/" + below, b"/" + self.pattern.lstrip(b"/")
        )

    def folders(self, root: bytes) -> list[bytes] | None:
        """Return the folders of an archive that all matches lie in; None if a match may be anywhere."""
        if b"/" not in self.pattern:
            return None
        literal = re.split(rb"[*?\[]", self.pattern, maxsplit=1)[0]
        above = root.rstrip(b"/") + b"/"
        starts = [literal.lstrip(b"/")]
        if literal.startswith(above):
            starts.append(literal[len(above) :])
        elif above.startswith(literal):
            starts.append(b"")
        found = [start.rpartition(b"/")[0] for start in starts]
        return None if b"" in found else found

    def matches_row(self, row: Row) -> bool:
        """Return whether an entry fits all criteria except the pattern."""
        if self.kind is not None and stat.S_IFMT(row.mode) != KINDS[self.kind]:
            return False
        if self.newer_ns is not None and row.mtime_ns <= self.newer_ns:
            return False
        return self.larger_bytes is None or row.size > self.larger_bytes


class EntrySearch:
    """Searches several archives by the same criteria."""

    def __init__(self, criteria: EntryCriteria) -> None:
        self._criteria = criteria
        self._found: OrderedDict[tuple[bytes, bytes], list[ArchiveEntry]] = OrderedDict()
        self._held = 0

    def find(self, archive: Archive) -> Iterator[ArchiveEntry]:
        """Return the matching entries of an archive, in archive order."""
        root = archive.header.root
        chunks = self._chunks(archive, root)
        plan = [(chunk, self._found.get((root, digest_of(chunk)))) for chunk in chunks]
        fetched = archive.map_ahead(archive.chunk_bytes, [chunk for chunk, held in plan if held is None])
        for chunk, held in plan:
            if held is not None:
                yield from held
                continue
            found = [entry for block in decode(next(fetched)) for entry in self._in(block, root)]
            self._keep((root, digest_of(chunk)), found)
            yield from found

    def _chunks(self, archive: Archive, root: bytes) -> list[Chunk]:
        """Return the chunks of the listing that may hold a match."""
        chunks = archive.listing_chunks
        folders = self._criteria.folders(root)
        if folders is None or len(chunks) <= READ_WHOLE_MAX:
            return chunks
        tree = ArchiveTree(archive)
        numbers = {number for folder in folders for number in tree.chunks_below(folder)}
        return [chunks[number] for number in sorted(numbers)]

    def _in(self, block: Block, root: bytes) -> Iterator[ArchiveEntry]:
        if block.kind == Kind.ROOT:
            return
        for index, name in enumerate(block.name_list()):
            row = Row.unpack(block.rows, index)
            if self._criteria.matches_path(root, block.path, name) and self._criteria.matches_row(row):
                yield block_entry(block, index)

    def _keep(self, key: tuple[bytes, bytes], found: list[ArchiveEntry]) -> None:
        self._found[key] = found
        self._held += len(found) + 1
        while self._held > FOUND_HELD_MAX and len(self._found) > 1:
            _, dropped = self._found.popitem(last=False)
            self._held -= len(dropped) + 1
