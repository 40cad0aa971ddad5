"""The catalog of an archive as a tree: looks up paths and subtrees without reading all of it.

Blocks stand in order, so a binary search finds the chunk of the catalog that holds a directory or a name in it.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from cryostore.agent.archive.listing import ArchiveEntry, block_entries, block_entry
from cryostore.agent.archive.missing_folders import UNKNOWN_FOLDER
from cryostore.agent.archive.reader import Archive
from cryostore.agent.block import Block, Kind, decode, order_key
from cryostore.agent.entry import NO_CONTENT
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.core.errors import ConfigurationError

CHUNKS_HELD = 8
Key = tuple[int, bytes, bytes]
"""What sorts blocks: kind, directory, and the first name, since a large directory has several blocks."""


class _Held(NamedTuple):
    """The blocks of a chunk of the catalog, and what sorts them."""

    keys: list[Key]
    blocks: list[Block]


class ArchiveTree:
    """Looks up paths in an archive. Thread safe. Raises what the store raises, and ArchiveDamagedError."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._chunks: OrderedDict[int, _Held] = OrderedDict()
        self._first_keys: dict[int, Key] = {}

    def root(self) -> ArchiveEntry:
        """The root itself."""
        for block in self._held(0).blocks:
            if block.kind == Kind.ROOT and block.entries:
                return block_entry(block, 0)
        return ArchiveEntry(b"", UNKNOWN_FOLDER, NO_CONTENT, [])

    def find(self, path: bytes) -> ArchiveEntry | None:
        """The entry at a path, None if there is none."""
        if not path:
            return self.root()
        parent, _, name = path.rpartition(b"/")
        behind = (Kind.DIRECTORY.value, order_key(parent), name + b"\0")
        held = self._held(self._chunk_with(behind))
        place = bisect_left(held.keys, behind) - 1
        if place >= 0 and held.keys[place][:2] == behind[:2]:
            block = held.blocks[place]
            names = block.name_list()
            index = bisect_left(names, name)
            if index < len(names) and names[index] == name:
                return block_entry(block, index)
        # See `whole_tree`: there may be a folder without an entry.
        return ArchiveEntry(path, UNKNOWN_FOLDER, NO_CONTENT, []) if self.directory(path) else None

    def directory(self, path: bytes) -> list[Block]:
        """The blocks of a directory; none if there is none."""
        first = (Kind.DIRECTORY.value, order_key(path), b"")
        found: list[Block] = []
        for number in range(self._chunk_with(first), len(self._archive.listing_chunks)):
            keys, blocks = self._held(number)
            begin, end = bisect_left(keys, first), bisect_left(keys, _end(path, b"\0"))
            found += blocks[begin:end]
            if end < len(keys):
                break
        return found

    def below(self, path: bytes) -> Iterator[Block]:
        """The blocks of a directory and of all directories below it, in order."""
        first, end = (Kind.DIRECTORY.value, order_key(path), b""), _end(path, b"\1")
        chunks = self._archive.listing_chunks[self._chunk_with(first) :]
        with closing(self._archive.ahead(self._archive.get, chunks)) as fetched:
            for data in fetched:
                for block in decode(data):
                    if (key := _key(block)) >= end:
                        return
                    if key >= first:
                        yield block

    def entries(self, path: bytes = b"", *, recursive: bool = True) -> Iterator[ArchiveEntry]:
        """What is at a path and, of a directory, in it, in the order of the archive; the root itself is left out.

        Raises ConfigurationError if there is nothing at the path.
        """
        entry = self.existing(path) if path else None
        if entry is not None and not entry.row.is_directory:
            yield entry
            return
        for block in self.below(path) if recursive else self.directory(path):
            yield from block_entries(block)

    def existing(self, path: bytes) -> ArchiveEntry:
        """The entry at a path. Raises ConfigurationError if there is none."""
        if (entry := self.find(path)) is None:
            raise ConfigurationError(
                f"the recovery point has no {os.fsdecode(path)!a}", hint="`cryo ls POINT` shows what it has"
            )
        return entry

    def chunks_below(self, path: bytes) -> range:
        """The numbers of the chunks of the catalog that may hold a directory or what is below it."""
        first, end = (Kind.DIRECTORY.value, order_key(path), b""), _end(path, b"\1")
        return range(self._chunk_with(first), self._chunk_with(end) + 1)

    def _chunk_with(self, wanted: Key) -> int:
        """The number of the last chunk whose first block is before this key; 0 if there is none."""
        low, high = 0, len(self._archive.listing_chunks)
        while low < high:
            middle = (low + high) // 2
            if self._first_key(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return max(low - 1, 0)

    def _first_key(self, number: int) -> Key:
        with self._lock:
            key = self._first_keys.get(number)
        return key if key is not None else self._held(number).keys[0]

    def _held(self, number: int) -> _Held:
        with self._lock:
            if (held := self._chunks.get(number)) is not None:
                self._chunks.move_to_end(number)
                return held
        if not self._archive.listing_chunks:
            raise ArchiveDamagedError("the catalog of the archive is empty")
        blocks = list(decode(self._archive.get(self._archive.listing_chunks[number])))
        if not blocks:
            raise ArchiveDamagedError("the archive's catalog has an empty chunk")
        held = _Held([_key(block) for block in blocks], blocks)
        with self._lock:
            self._first_keys[number] = held.keys[0]
            self._chunks[number] = held
            while len(self._chunks) > CHUNKS_HELD:
                self._chunks.popitem(last=False)
        return held


def _end(path: bytes, above: bytes) -> Key:
    """The key behind those of a directory: `above` is 0 to end before the directories in it, 1 to end behind them."""
    if not path and above == b"\1":
        return (Kind.DIRECTORY.value + 1, b"", b"")
    return (Kind.DIRECTORY.value, order_key(path) + above, b"")


def _key(block: Block) -> Key:
    return block.kind, order_key(block.path), block.names.partition(b"\0")[0]
