"""What a server counts, in memory that its processes share: one slot of numbers for each worker.

A worker writes to its own slot alone and never waits; whoever shows the numbers adds the slots up. A worker that falls
leaves its slot to the one started in its place, so that no counter goes back. All series are known beforehand: no value
that a client sends can make a new one. Does not live here: how the numbers are shown (`exposition`).
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from bisect import bisect_left
from collections.abc import Iterator
from time import monotonic

from cryostore.core.traffic import NUMBERS, SECONDS_BOUNDS
from cryostore.model import OPERATIONS

NUMBER_BYTES = 8
NONE = "none"
"""Stands for the operation of a request that named none."""
OPERATION_NAMES = (*sorted(OPERATIONS), NONE)
STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
PARTS = ("catalog", "blobs")
"""The parts of a shared store that are reached over a network."""
FAILURES = (
    "full",
    "read-only",
    "input/output",
    "open files",
    "permission",
    "catalog",
    "blobs",
    "damaged",
    "key",
    "unavailable",
)
TOTALS = ("chunks_stored", "bytes_stored", "chunks_shared", "bytes_shared", "connections_refused")
GAUGES = (
    "heartbeat",
    "draining",
    "store_away",
    "key_away",
    "blobs_away",
    "full",
    "connections",
    "catalog_connections",
    "requests_running",
    "requests_waiting",
    "body_bytes_held",
    "body_bytes_max",
)
STORE_GAUGES = (
    "store_seen",
    "recovery_points",
    "chunks_damaged",
    "collected_seconds",
    "collection_passes",
    "collection_false_share",
    "garbage_bytes",
    "scrubbed_seconds",
    "store_bytes",
    "claims_held",
    "backup_jobs_open",
    "restore_jobs_open",
)
PER_OPERATION = len(STATUSES) + 3 + len(SECONDS_BOUNDS) + 1
"""Requests by status; bytes in, bytes out, seconds; requests by duration, the last of them longer than all bounds."""
_IN, _OUT, _SECONDS, _BUCKETS = (len(STATUSES) + place for place in range(4))


def _places() -> Iterator[tuple[str, int]]:
    """Every number of a slot that is no operation's, with its place."""
    start = PER_OPERATION * len(OPERATION_NAMES)
    traffic = (f"{part} {number}" for part in PARTS for number in NUMBERS)
    names = (*(f"failure {kind}" for kind in FAILURES), *traffic, *TOTALS, *GAUGES, *STORE_GAUGES)
    yield from zip(names, range(start, start + len(names)), strict=True)


PLACES = dict(_places())
OPERATION_PLACES = {name: place * PER_OPERATION for place, name in enumerate(OPERATION_NAMES)}
SLOT_NUMBERS = PER_OPERATION * len(OPERATION_NAMES) + len(PLACES)


class Meter:
    """The slot of one worker. `request` is for its event loop alone; the others may be called from any thread."""

    def __init__(self, numbers: memoryview[float]) -> None:
        self._numbers = numbers
        self._lock = threading.Lock()

    def request(self, operation: str | None, status: int, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """Count one answered request."""
        numbers = self._numbers
        start = OPERATION_PLACES[operation or NONE]
        numbers[start + status // 100 - 1] += 1
        numbers[start + _IN] += bytes_in
        numbers[start + _OUT] += bytes_out
        numbers[start + _SECONDS] += seconds
        numbers[start + _BUCKETS + bisect_left(SECONDS_BOUNDS, seconds)] += 1

    def failure(self, kind: str) -> None:
        """Count one failure of the storage."""
        self.add(f"failure {kind}", 1)

    def add(self, name: str, more: float) -> None:
        """Raise a total."""
        with self._lock:
            self._numbers[PLACES[name]] += more

    def show(self, **gauges: float) -> None:
        """Set gauges, and say by it that the worker lives."""
        for name, value in gauges.items():
            self._numbers[PLACES[name]] = value
        self._numbers[PLACES["heartbeat"]] = monotonic()

    def show_store(self, **gauges: float) -> None:
        """Set gauges of the store, which every worker sees alike."""
        for name, value in gauges.items():
            self._numbers[PLACES[name]] = value
        self._numbers[PLACES["store_seen"]] = monotonic()


class Slot:
    """The numbers of one worker, to be read."""

    def __init__(self, numbers: memoryview[float]) -> None:
        self._numbers = numbers

    def value(self, name: str) -> float:
        """A total or gauge."""
        return float(self._numbers[PLACES[name]])

    def requests(self, operation: str) -> list[float]:
        """Requests by status class, in the order of STATUSES."""
        start = OPERATION_PLACES[operation]
        return list(self._numbers[start : start + len(STATUSES)])

    def traffic(self, operation: str) -> tuple[float, float]:
        """Bytes of bodies in and out."""
        start = OPERATION_PLACES[operation]
        return self._numbers[start + _IN], self._numbers[start + _OUT]

    def durations(self, operation: str) -> tuple[list[float], float]:
        """Requests by duration, one number more than there are bounds; and the sum of all seconds."""
        start = OPERATION_PLACES[operation]
        buckets = self._numbers[start + _BUCKETS : start + PER_OPERATION]
        return list(buckets), self._numbers[start + _SECONDS]


class SharedMetrics:
    """The slots of all workers, in the file behind `descriptor`, which stays the caller's to close."""

    def __init__(self, descriptor: int) -> None:
        numbers = memoryview(mmap.mmap(descriptor, 0)).cast("d")
        self._slots = [numbers[start : start + SLOT_NUMBERS] for start in range(0, len(numbers), SLOT_NUMBERS)]

    def meter(self, slot: int) -> Meter:
        """The writing end of one slot."""
        return Meter(self._slots[slot])

    @property
    def slots(self) -> list[Slot]:
        """All slots, to be read."""
        return [Slot(numbers) for numbers in self._slots]

    def clear_gauges(self, slot: int) -> None:
        """Take back what a worker that has ended said of its present state; what it counted stays."""
        for name in (*GAUGES, *STORE_GAUGES):
            self._slots[slot][PLACES[name]] = 0.0


def create_shared_metrics(workers: int) -> int:
    """A new page on which everything is 0; answers its descriptor. Raises OSError."""
    with tempfile.TemporaryFile() as file:  # it has no name, and ends with the last process that has it
        file.write(bytes(workers * SLOT_NUMBERS * NUMBER_BYTES))
        file.flush()
        return os.dup(file.fileno())


def private_meter() -> Meter:
    """A meter that nobody else sees."""
    return Meter(memoryview(bytearray(SLOT_NUMBERS * NUMBER_BYTES)).cast("d"))
