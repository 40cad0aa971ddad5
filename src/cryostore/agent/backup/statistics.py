"""Archive statistics, collected block by block while the archive is written."""

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


class ArchiveStatistics:
    """Numbers of entries, files and bytes, owners, and the live bytes of each content object."""

    def __init__(self) -> None:
        self.entries = 0
        self.files = 0
        self.file_bytes = 0
        self.live_bytes: Counter[int] = Counter()
        """By content object. Bytes shared by several files count once for each, so this is only an estimate."""
        self.ends: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))
        """By content object and chunk index: how many bytes, from the start of the chunk, the files in it need."""
        self.unplaced: set[int] = set()
        """Content objects for which `ends` is incomplete."""
        self.users: set[int] = set()
        self.groups: set[int] = set()

    def add(self, rows: bytes, contents: bytes) -> int:
        """Count the entries of a block. Return the number of files in it."""
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
        """Make room for a chunk. Return False if the index is higher than that of any chunk."""
        if chunk >= CHUNKS_MAX:
            self.unplaced.add(number)
            return False
        ends = self.ends[number]
        ends.frombytes(bytes(ends.itemsize * (chunk + 1 - len(ends))))
        return True
