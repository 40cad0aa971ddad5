"""Retries with exponential backoff: how long they go on, and the delay between two attempts.

The delay doubles up to a limit and varies with what is retried, so that many clients that were refused together do not
return together. No attempt begins later than a limit after the first; the caller bounds how long one attempt takes.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """When to retry. `monotonic` and `sleep` are parameters for tests."""

    begin_seconds_max: float
    delay_first_seconds: float = 0.1
    delay_seconds_max: float = 5.0
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def tries(self, what: str) -> Iterator[bool]:
        """Yield, for each attempt, whether it is the last one; sleep before all but the first."""
        end = self.monotonic() + self.begin_seconds_max
        number = 0
        while True:
            delay_seconds = self.delay_seconds(what, number)
            last = self.monotonic() + delay_seconds > end
            yield last
            if last:
                return
            self.sleep(delay_seconds)
            number += 1

    def delay_seconds(self, what: str, number: int) -> float:
        """Return the delay after attempt `number`, counted from 0: between half a limit that doubles and all of it."""
        bound = min(self.delay_seconds_max, self.delay_first_seconds * 2.0 ** min(number, 60))
        share = zlib.crc32(f"{what} {number}".encode()) / 0xFFFFFFFF
        return bound * (1 + share) / 2
