"""The metrics of a server, in memory that its processes share: one slot of numbers for each worker.

A worker writes to its own slot only and never waits; the exposition adds the slots up. A worker that exits leaves its
slot to the worker started in its place, so no counter goes back. All series are known beforehand: no value that a
client sends can create one. Not here: their text format (`exposition`).
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from time import monotonic

from cryostore.core.traffic import NUMBERS, SECONDS_BOUNDS
from cryostore.model import OPERATIONS

NUMBER_BYTES = 8
NONE = "none"
"""The operation of a request that names none."""
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


def _indexes() -> Iterator[tuple[str, int]]:
    """The numbers of a slot that belong to no operation, each with its index."""
    start = PER_OPERATION * len(OPERATION_NAMES)
    traffic = (f"{part} {number}" for part in PARTS for number in NUMBERS)
    names = (*(f"failure {kind}" for kind in FAILURES), *traffic, *TOTALS, *GAUGES, *STORE_GAUGES)
    yield from zip(names, range(start, start + len(names)), strict=True)


INDEXES = dict(_indexes())
OPERATION_STARTS = {name: place * PER_OPERATION for place, name in enumerate(OPERATION_NAMES)}
SLOT_NUMBERS = PER_OPERATION * len(OPERATION_NAMES) + len(INDEXES)


class Meter:
    """The slot of one worker, to write. `request` is for its event loop only; other methods are thread safe."""

    def __init__(self, numbers: memoryview[float], now: Callable[[], float] = monotonic) -> None:
        self._numbers = numbers
        self._now = now
        self._lock = threading.Lock()

    def request(self, operation: str | None, status: int, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """Count one answered request."""
        numbers = self._numbers
        start = OPERATION_STARTS[operation or NONE]
        numbers[start + status // 100 - 1] += 1
        numbers[start + _IN] += bytes_in
        numbers[start + _OUT] += bytes_out
        numbers[start + _SECONDS] += seconds
        numbers[start + _BUCKETS + bisect_left(SECONDS_BOUNDS, seconds)] += 1

    def failure(self, kind: str) -> None:
        """Count one failure of the storage."""
        self.add(f"failure {kind}", 1)

    def add(self, name: str, more: float) -> None:
        """Increase a counter."""
        with self._lock:
            self._numbers[INDEXES[name]] += more

    def show(self, **gauges: float) -> None:
        """Set gauges, and the heartbeat of the worker."""
        for name, value in gauges.items():
            self._numbers[INDEXES[name]] = value
        self._numbers[INDEXES["heartbeat"]] = self._now()

    def show_store(self, **gauges: float) -> None:
        """Set gauges of the store, which are the same in every worker."""
        for name, value in gauges.items():
            self._numbers[INDEXES[name]] = value
        self._numbers[INDEXES["store_seen"]] = self._now()


class Slot:
    """The slot of one worker, to read."""

    def __init__(self, numbers: memoryview[float]) -> None:
        self._numbers = numbers

    def value(self, name: str) -> float:
        """Return a counter or gauge."""
        return float(self._numbers[INDEXES[name]])

    def requests(self, operation: str) -> list[float]:
        """Return the requests of an operation by status class, in the order of STATUSES."""
        start = OPERATION_STARTS[operation]
        return list(self._numbers[start : start + len(STATUSES)])

    def traffic(self, operation: str) -> tuple[float, float]:
        """Return the bytes of request and of response bodies of an operation."""
        start = OPERATION_STARTS[operation]
        return self._numbers[start + _IN], self._numbers[start + _OUT]

    def durations(self, operation: str) -> tuple[list[float], float]:
        """Return the requests by duration, one number more than there are bounds, and the sum of all seconds."""
        start = OPERATION_STARTS[operation]
        buckets = self._numbers[start + _BUCKETS : start + PER_OPERATION]
        return list(buckets), self._numbers[start + _SECONDS]


class SharedMetrics:
    """The slots of all workers, in the file behind `descriptor`, which the caller closes."""

    def __init__(self, descriptor: int, now: Callable[[], float] = monotonic) -> None:
        self.now = now
        numbers = memoryview(mmap.mmap(descriptor, 0)).cast("d")
        self._slots = [numbers[start : start + SLOT_NUMBERS] for start in range(0, len(numbers), SLOT_NUMBERS)]

    def meter(self, slot: int) -> Meter:
        """Return one slot, to write."""
        return Meter(self._slots[slot], self.now)

    @property
    def slots(self) -> list[Slot]:
        """All slots, to read."""
        return [Slot(numbers) for numbers in self._slots]

    def clear_gauges(self, slot: int) -> None:
        """Set the gauges of a worker that has exited to zero; its counters stay."""
        for name in (*GAUGES, *STORE_GAUGES):
            self._slots[slot][INDEXES[name]] = 0.0


def create_shared_metrics(workers: int) -> int:
    """Create a file of slots that are all zero; returns its descriptor. Raises OSError."""
    with tempfile.TemporaryFile() as file:  # unnamed: it disappears with the last process that has it open
        file.write(bytes(workers * SLOT_NUMBERS * NUMBER_BYTES))
        file.flush()
        return os.dup(file.fileno())


def private_meter() -> Meter:
    """Return a meter on memory of this process alone."""
    return Meter(memoryview(bytearray(SLOT_NUMBERS * NUMBER_BYTES)).cast("d"))
