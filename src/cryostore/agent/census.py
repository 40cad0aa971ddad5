"""What is in the blocks of an archive, counted as they are written, a block at a time."""

from __future__ import annotations

import struct
from collections import Counter

from cryostore.agent.entry import CONTENT, ROW

FORMAT_BITS = 0o170000
REGULAR = 0o100000
_MODE_AND_SIZE = struct.Struct("<I16xq24x")
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
        self.users: set[int] = set()
        self.groups: set[int] = set()

    def add(self, rows: bytes, contents: bytes) -> int:
        """Count a block; answers how many files are in it."""
        numbers = memoryview(contents).cast("I")[::_CONTENT_WORDS]
        files = file_bytes = 0
        live_bytes = self.live_bytes
        for (mode, size), number in zip(_MODE_AND_SIZE.iter_unpack(rows), numbers, strict=True):
            if mode & FORMAT_BITS == REGULAR:
                files += 1
                file_bytes += size
                if number:
                    live_bytes[number] += size
        words = memoryview(rows).cast("I")
        self.users.update(words[1::_ROW_WORDS])
        self.groups.update(words[2::_ROW_WORDS])
        self.entries += len(numbers)
        self.files += files
        self.file_bytes += file_bytes
        return files
