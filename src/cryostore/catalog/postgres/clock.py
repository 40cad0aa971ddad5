"""The time of the database, which is the clock of all who share it."""

from __future__ import annotations

import threading
import time

from cryostore.core.time import MINUTE_MS

MEASURED_EVERY_SECONDS = 30
STEP_BACK_MS = MINUTE_MS
"""The clocks of a database and its replicas may be apart by less. Further back goes one that was wrong before."""


def _elapsed_seconds() -> float:
    """Time that passes evenly, while the machine sleeps too where the system counts that."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class DatabaseClock:
    """A `Clock` that counts on from the database's time as it was last measured.

    It does not go back by less than `STEP_BACK_MS`: then it stands still instead. The clock of this machine is not
    looked at.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measured_ms = 0
        self._measured_at: float | None = None
        self._last_ms = 0

    @property
    def is_due(self) -> bool:
        """Whether it is time to measure again."""
        return self._measured_at is None or _elapsed_seconds() - self._measured_at >= MEASURED_EVERY_SECONDS

    def begin(self) -> float:
        """To be called before the database is asked for its time; give the answer to `end`."""
        return _elapsed_seconds()

    def end(self, began: float, database_ms: int) -> None:
        """Take over what the database answered: its time was that in the middle between asking and now."""
        with self._lock:
            self._measured_at = (began + _elapsed_seconds()) / 2
            self._measured_ms = database_ms
            if self._last_ms - database_ms >= STEP_BACK_MS:
                self._last_ms = 0

    def __call__(self) -> int:
        with self._lock:
            assert self._measured_at is not None
            passed_ms = (_elapsed_seconds() - self._measured_at) * 1000
            self._last_ms = max(self._last_ms, self._measured_ms + int(passed_ms))
            return self._last_ms
