"""Connection counts: how many connections each worker has, in memory that all workers share.

The counts are hints. No process waits for them, and only the distribution of connections depends on them.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile

NUMBER_BYTES = 8
ABSENT = 2**62
"""The count of a worker that accepts no connections: higher than every real count."""


class ConnectionCounts:
    """The counts in the file behind `descriptor`, which the caller closes; `slot` is the one of this worker."""

    def __init__(self, descriptor: int, slot: int) -> None:
        self._slot = slot
        self._numbers = memoryview(mmap.mmap(descriptor, 0)).cast("q")

    def publish(self, connections: int) -> None:
        """Set the count of this worker."""
        self._numbers[self._slot] = connections

    def fewest_elsewhere(self) -> int:
        """Return the lowest count of the other workers; ABSENT if there is no other."""
        others = (number for slot, number in enumerate(self._numbers) if slot != self._slot)
        return min(others, default=ABSENT)


def create_connection_counts(workers: int) -> int:
    """Create counts in which every worker is absent; returns the descriptor. Raises OSError."""
    with tempfile.TemporaryFile() as file:  # unnamed: it disappears with the last process that has it open
        file.write(ABSENT.to_bytes(NUMBER_BYTES, sys.byteorder) * workers)
        file.flush()
        return os.dup(file.fileno())


def mark_absent(descriptor: int, slot: int) -> None:
    """Set the count of the worker in this slot to ABSENT. Raises OSError."""
    os.pwrite(descriptor, ABSENT.to_bytes(NUMBER_BYTES, sys.byteorder), slot * NUMBER_BYTES)
