"""What is in the blocks of an archive, counted as they are written, a block at a time."""

from __future__ import annotations

import struct
from array import array
from collections import Counter, defaultdict

from cryostore.agent.entry import CONTENT, ROW

FORMAT_BITS = 0o170000
REGULAR = 0o100000
_MODE_AND_SIZE = struct.Struct("<I16xq24x")
CHUNKS_MAX = 10_000_000
"""An object has fewer chunks."""
_ROW_WORDS = ROW.size // 4
_CONTENT_WORDS = CONTENT.size // 4


class Census:
    """Entries, files and their bytes, whose they are, and how many bytes lie in which content object."""

    def __init__(self) -> None:
        self.entries = 0
        self.files = 0
        self.file_bytes = 0
        self.live_bytes: Counter[int] = Counter()
        """By content object. What several files share counts for each: this tells no more than whether it is much."""
        self.ends: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))
        """By content object, for each chunk that files begin in: how many bytes from its beginning on they need."""
        self.unplaced: set[int] = set()
        """Content objects of which `ends` does not tell all."""
        self.users: set[int] = set()
        self.groups: set[int] = set()

    def add(self, rows: bytes, contents: bytes) -> int:
        """Count a block; answers how many files are in it."""
        places = memoryview(contents).cast("I")
        numbers = places[::_CONTENT_WORDS]
        begins = zip(numbers, places[1::_CONTENT_WORDS], places[2::_CONTENT_WORDS], strict=True)
        files = file_bytes = 0
        live_bytes = self.live_bytes
        for (mode, size), (number, chunk, offset) in zip(_MODE_AND_SIZE.iter_unpack(rows), begins, strict=True):
            if mode & FORMAT_BITS == REGULAR:
                files += 1
                file_bytes += size
                if number:
                    live_bytes[number] += size
                    ends = self.ends[number]
                    if chunk >= len(ends) and not self._lengthen(number, chunk):
                        continue
                    ends[chunk] = max(ends[chunk], offset + size)
        words = memoryview(rows).cast("I")
        self.users.update(words[1::_ROW_WORDS])
        self.groups.update(words[2::_ROW_WORDS])
        self.entries += len(numbers)
        self.files += files
        self.file_bytes += file_bytes
        return files

    def _lengthen(self, number: int, chunk: int) -> bool:
        """Make room for a chunk; false if no object has so many."""
        if chunk >= CHUNKS_MAX:
            self.unplaced.add(number)
            return False
        ends = self.ends[number]
        ends.frombytes(bytes(ends.itemsize * (chunk + 1 - len(ends))))
        return True
