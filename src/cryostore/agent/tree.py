"""The catalog of an archive as a tree in which single paths are looked up, without reading all of it.

Blocks stand in order, so that the chunk of the catalog that holds a directory is found by halving.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import NamedTuple

from cryostore.agent.archive import Archive
from cryostore.agent.block import Block, Kind, decode, order_key
from cryostore.agent.entry import Content, Row
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.listing import Entry
from cryostore.agent.walk import join

CHUNKS_HELD = 8
Key = tuple[int, bytes]


class _Held(NamedTuple):
    """The blocks of a chunk of the catalog, and what sorts them."""

    keys: list[Key]
    blocks: list[Block]


class Tree:
    """Looks up paths in an archive. Thread safe. Raises what the store raises, and ArchiveDamagedError."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._chunks: OrderedDict[int, _Held] = OrderedDict()
        self._first_keys: dict[int, Key] = {}

    def root(self) -> Entry:
        """The root itself."""
        for block in self._held(0).blocks:
            if block.kind == Kind.ROOT:
                return entry_of(block, 0)
        raise ArchiveDamagedError("the archive's catalog has no root")

    def find(self, path: bytes) -> Entry | None:
        """The entry at a path, None if there is none."""
        if not path:
            return self.root()
        parent, _, name = path.rpartition(b"/")
        for block in self.directory(parent):
            names = block.name_list()
            index = bisect_left(names, name)
            if index < len(names) and names[index] == name:
                return entry_of(block, index)
        return None

    def directory(self, path: bytes) -> list[Block]:
        """The blocks of a directory; none if there is none."""
        wanted = (Kind.DIRECTORY.value, order_key(path))
        found: list[Block] = []
        for number in range(max(self._first_not_before(wanted) - 1, 0), len(self._archive.catalog_chunks)):
            keys, blocks = self._held(number)
            first = bisect_left(keys, wanted)
            last = bisect_right(keys, wanted)
            found += blocks[first:last]
            if last < len(keys):
                break
        return found

    def _first_not_before(self, wanted: Key) -> int:
        """The number of the first chunk whose first block is not before this key."""
        low, high = 0, len(self._archive.catalog_chunks)
        while low < high:
            middle = (low + high) // 2
            if self._first_key(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def _first_key(self, number: int) -> Key:
        with self._lock:
            key = self._first_keys.get(number)
        return key if key is not None else self._held(number).keys[0]

    def _held(self, number: int) -> _Held:
        with self._lock:
            if (held := self._chunks.get(number)) is not None:
                self._chunks.move_to_end(number)
                return held
        blocks = list(decode(self._archive.get(self._archive.catalog_chunks[number])))
        if not blocks:
            raise ArchiveDamagedError("the archive's catalog has an empty chunk")
        held = _Held([_key(block) for block in blocks], blocks)
        with self._lock:
            self._first_keys[number] = held.keys[0]
            self._chunks[number] = held
            while len(self._chunks) > CHUNKS_HELD:
                self._chunks.popitem(last=False)
        return held


def _key(block: Block) -> Key:
    return block.kind, order_key(block.path)


def entry_of(block: Block, index: int) -> Entry:
    """The entry number `index` of a block."""
    path = join(block.path, block.name_list()[index])
    extras = block.extras_of().get(index, []) if block.extras else []
    return Entry(path, Row.unpack(block.rows, index), Content.unpack(block.contents, index), extras)
