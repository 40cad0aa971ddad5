"""Listing of an archive: its entries one by one, and the tree that finds paths without reading the whole listing.

The blocks of a listing are sorted, so a binary search finds the chunk that holds a directory or a name in it.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from cryostore.agent.archive.block_order import UNKNOWN_FOLDER
from cryostore.agent.archive.reader import Archive
from cryostore.agent.block import Block, Extra, Kind, decode, order_key
from cryostore.agent.entry import NO_CONTENT, Content, Row
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.source.walk import join
from cryostore.core.errors import ConfigurationError

CHUNKS_HELD = 8
_Key = tuple[int, bytes, bytes]
"""The sort key of a block: kind, directory, first name (a large directory has several blocks)."""


class ArchiveEntry(NamedTuple):
    """An entry of an archive: its path, its row, where its content lies, and its extra fields."""

    path: bytes
    row: Row
    content: Content
    extras: list[Extra]


def archive_entries(archive: Archive) -> Iterator[ArchiveEntry]:
    """Return all entries of an archive in archive order, without the root."""
    for block in archive.blocks():
        if block.kind != Kind.ROOT:
            yield from block_entries(block)


def block_entries(block: Block) -> Iterator[ArchiveEntry]:
    """Return the entries of a block."""
    extras = block.extras_of()
    for index, name in enumerate(block.name_list()):
        row, content = Row.unpack(block.rows, index), Content.unpack(block.contents, index)
        yield ArchiveEntry(join(block.path, name), row, content, extras.get(index, []))


def block_entry(block: Block, index: int) -> ArchiveEntry:
    """Return entry number `index` of a block."""
    path = join(block.path, block.name_list()[index])
    extras = block.extras_of().get(index, []) if block.extras else []
    return ArchiveEntry(path, Row.unpack(block.rows, index), Content.unpack(block.contents, index), extras)


def archive_path(archive: Archive, text: str) -> bytes:
    """Turn a path as the user writes it into one below the archive's root.

    An absolute path is taken below the root's own path, or else from the top of the archive.
    """
    path = os.path.normpath(os.fsencode(text)) if text else b"."
    root = archive.header.root
    if path.startswith(b"/"):
        if path != root and not path.startswith(root.rstrip(b"/") + b"/"):
            path = path.lstrip(b"/")
        else:
            path = path[len(root.rstrip(b"/")) :].lstrip(b"/")
    return b"" if path in (b".", b"") else path


class _ListedChunk(NamedTuple):
    """The blocks of a chunk of the listing, with their sort keys."""

    keys: list[_Key]
    blocks: list[Block]


class ArchiveTree:
    """Finds paths in an archive. Thread safe. Methods raise ArchiveDamagedError and what the store raises."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._chunks: OrderedDict[int, _ListedChunk] = OrderedDict()
        self._first_keys: dict[int, _Key] = {}

    def root(self) -> ArchiveEntry:
        """Return the entry of the root."""
        for block in self._listed_chunk(0).blocks:
            if block.kind == Kind.ROOT and block.entries:
                return block_entry(block, 0)
        return ArchiveEntry(b"", UNKNOWN_FOLDER, NO_CONTENT, [])

    def find(self, path: bytes) -> ArchiveEntry | None:
        """Return the entry at a path, None if there is none."""
        if not path:
            return self.root()
        parent, _, name = path.rpartition(b"/")
        after = (Kind.DIRECTORY.value, order_key(parent), name + b"\0")
        held = self._listed_chunk(self._chunk_with(after))
        position = bisect_left(held.keys, after) - 1
        if position >= 0 and held.keys[position][:2] == after[:2]:
            block = held.blocks[position]
            names = block.name_list()
            index = bisect_left(names, name)
            if index < len(names) and names[index] == name:
                return block_entry(block, index)
        # A folder may lack its entry: see `block_order`.
        return ArchiveEntry(path, UNKNOWN_FOLDER, NO_CONTENT, []) if self.directory(path) else None

    def directory(self, path: bytes) -> list[Block]:
        """Return the blocks of a directory; none if the directory does not exist."""
        first = (Kind.DIRECTORY.value, order_key(path), b"")
        found: list[Block] = []
        for number in range(self._chunk_with(first), len(self._archive.listing_chunks)):
            keys, blocks = self._listed_chunk(number)
            begin, end = bisect_left(keys, first), bisect_left(keys, _end(path, b"\0"))
            found += blocks[begin:end]
            if end < len(keys):
                break
        return found

    def below(self, path: bytes) -> Iterator[Block]:
        """Return the blocks of a directory and of all directories below it, in order."""
        first, end = (Kind.DIRECTORY.value, order_key(path), b""), _end(path, b"\1")
        chunks = self._archive.listing_chunks[self._chunk_with(first) :]
        with closing(self._archive.map_ahead(self._archive.chunk_bytes, chunks)) as fetched:
            for data in fetched:
                for block in decode(data):
                    if (key := _key(block)) >= end:
                        return
                    if key >= first:
                        yield block

    def entries(self, path: bytes = b"", *, recursive: bool = True) -> Iterator[ArchiveEntry]:
        """Return the entry at a path or, if that is a directory, the entries in it, in archive order, without the root.

        Raises ConfigurationError if there is nothing at the path.
        """
        entry = self.require(path) if path else None
        if entry is not None and not entry.row.is_directory:
            yield entry
            return
        for block in self.below(path) if recursive else self.directory(path):
            yield from block_entries(block)

    def require(self, path: bytes) -> ArchiveEntry:
        """Return the entry at a path. Raises ConfigurationError if there is none."""
        if (entry := self.find(path)) is None:
            raise ConfigurationError(
                f"the recovery point does not contain {os.fsdecode(path)!a}", hint="`cryo ls POINT` lists its entries"
            )
        return entry

    def chunks_below(self, path: bytes) -> range:
        """Return the numbers of the chunks of the listing that may hold a directory or entries below it."""
        first, end = (Kind.DIRECTORY.value, order_key(path), b""), _end(path, b"\1")
        return range(self._chunk_with(first), self._chunk_with(end) + 1)

    def _chunk_with(self, wanted: _Key) -> int:
        """Return the number of the last chunk whose first block sorts before this key; 0 if there is none."""
        low, high = 0, len(self._archive.listing_chunks)
        while low < high:
            middle = (low + high) // 2
            if self._first_key(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return max(low - 1, 0)

    def _first_key(self, number: int) -> _Key:
        with self._lock:
            key = self._first_keys.get(number)
        return key if key is not None else self._listed_chunk(number).keys[0]

    def _listed_chunk(self, number: int) -> _ListedChunk:
        with self._lock:
            if (held := self._chunks.get(number)) is not None:
                self._chunks.move_to_end(number)
                return held
        if not self._archive.listing_chunks:
            raise ArchiveDamagedError("the listing of the archive is empty")
        blocks = list(decode(self._archive.chunk_bytes(self._archive.listing_chunks[number])))
        if not blocks:
            raise ArchiveDamagedError("the listing of the archive has an empty chunk")
        held = _ListedChunk([_key(block) for block in blocks], blocks)
        with self._lock:
            self._first_keys[number] = held.keys[0]
            self._chunks[number] = held
            while len(self._chunks) > CHUNKS_HELD:
                self._chunks.popitem(last=False)
        return held


def _end(path: bytes, above: bytes) -> _Key:
    """Return the key after those of a directory: `above` is 0 to end before its subdirectories, 1 to end after them."""
    if not path and above == b"\1":
        return (Kind.DIRECTORY.value + 1, b"", b"")
    return (Kind.DIRECTORY.value, order_key(path) + above, b"")


def _key(block: Block) -> _Key:
    return block.kind, order_key(block.path), block.names.partition(b"\0")[0]
