"""The board: how many connections each worker of a server has, for all of them to see.

One number for each worker in memory that the processes share. They are hints: nobody waits for them, and nothing but
the spread of connections depends on them.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile

NUMBER_BYTES = 8
ABSENT = 2**62
"""The number of a worker that takes no connections: more than anybody has."""


class Board:
    """The board in the file behind `descriptor`, which stays the caller's to close; `slot` is one's own place on it."""

    def __init__(self, descriptor: int, slot: int) -> None:
        self._slot = slot
        self._numbers = memoryview(mmap.mmap(descriptor, 0)).cast("q")

    def write(self, connections: int) -> None:
        """Say how many connections one has."""
        self._numbers[self._slot] = connections

    def fewest_elsewhere(self) -> int:
        """How many the least busy of the others has, ABSENT if there is no other."""
        others = (number for slot, number in enumerate(self._numbers) if slot != self._slot)
        return min(others, default=ABSENT)


def create_board(workers: int) -> int:
    """A new board on which everybody is absent; answers its descriptor. Raises OSError."""
    with tempfile.TemporaryFile() as file:  # it has no name, and ends with the last process that has it
        file.write(ABSENT.to_bytes(NUMBER_BYTES, sys.byteorder) * workers)
        file.flush()
        return os.dup(file.fileno())


def clear_slot(descriptor: int, slot: int) -> None:
    """Write the worker of this slot down as absent. Raises OSError."""
    os.pwrite(descriptor, ABSENT.to_bytes(NUMBER_BYTES, sys.byteorder), slot * NUMBER_BYTES)
