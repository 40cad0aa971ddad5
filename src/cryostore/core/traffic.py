"""Traffic counters of a part of a shared store: requests, failures by kind, retries, durations.

Retries hide failures from callers. So they are counted here for metrics, and logged in at most one line per period. The
presentation of the numbers is elsewhere (`server.monitoring.metrics`).
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
KINDS = ("passing", "refused", "full", "conflict", "lost", "other side")
"""Why a request failed: temporary; refused for good; no space; a conflict with other requests; connection lost;
the other side is unavailable for now."""
LINE_SECONDS = 10.0
BUCKETS = tuple(f"bucket {number}" for number in range(len(SECONDS_BOUNDS) + 1))
NUMBERS = ("requests", "retries", "seconds", *(f"failure {kind}" for kind in KINDS), *BUCKETS)
_log = logging.getLogger(__name__)


class Traffic:
    """Counters of one part of a store, which has a name for people. Thread safe. The numbers only grow."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._lock = threading.Lock()
        self._numbers = dict.fromkeys(NUMBERS, 0.0)
        self._said = float("-inf")
        self._held_back = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count and time one request."""
        began = monotonic()
        try:
            yield
        finally:
            self._add_request(monotonic() - began)

    def failed(self, kind: str) -> None:
        """Count a request that failed."""
        with self._lock:
            self._numbers[f"failure {kind}"] += 1

    def retried(self, reason: str = "") -> None:
        """Count a retry. A reason is logged, with at most one line per LINE_SECONDS."""
        with self._lock:
            self._numbers["retries"] += 1
            if not reason:
                return
            if monotonic() - self._said < LINE_SECONDS:
                self._held_back += 1
                return
            self._said = monotonic()
            held_back, self._held_back = self._held_back, 0
        _log.warning("%s: %s; trying again (%d such lines held back)", self._part, reason, held_back)

    def numbers(self) -> dict[str, float]:
        """The current numbers, by the names in NUMBERS."""
        with self._lock:
            return dict(self._numbers)

    def _add_request(self, seconds: float) -> None:
        with self._lock:
            self._numbers["requests"] += 1
            self._numbers["seconds"] += seconds
            self._numbers[BUCKETS[bisect_left(SECONDS_BOUNDS, seconds)]] += 1
