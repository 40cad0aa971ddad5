"""How long to go on trying when a service fails, and how long to wait between.

Waits double up to a bound and differ by what is tried, so that many who were refused together do not come back
together. No try begins later than a while after the first; how long one takes, whoever makes it bounds.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """When to try again. `monotonic` and `sleep` are for tests."""

    begin_seconds_max: float
    delay_first_seconds: float = 0.1
    delay_seconds_max: float = 5.0
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def tries(self, what: str) -> Iterator[bool]:
        """Whether each try is the last one; waits before all but the first."""
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
        """How long to wait after try `number`, counted from 0: between half a bound that doubles and all of it."""
        bound = min(self.delay_seconds_max, self.delay_first_seconds * 2.0 ** min(number, 60))
        share = zlib.crc32(f"{what} {number}".encode()) / 0xFFFFFFFF
        return bound * (1 + share) / 2
