"""Clock of the catalog's database, which all nodes of a store share."""

from __future__ import annotations

import threading
import time

from cryostore.core.time import MINUTE_MS

MEASURED_EVERY_SECONDS = 30
STEP_BACK_MS = MINUTE_MS
"""The clock follows the database back by this much or more: then its time was wrong before.

The clocks of a database and its replicas may differ by less.
"""


def _elapsed_seconds() -> float:
    """Return seconds of a steady clock that also counts suspension, where the system supports that."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class DatabaseClock:
    """A `Clock` that counts on from the last measured time of the database.

    It never goes back by less than `STEP_BACK_MS`: it stands still instead. It ignores the wall clock of this machine.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measured_ms = 0
        self._measured_at: float | None = None
        self._last_ms = 0

    @property
    def is_due(self) -> bool:
        """Whether the time should be measured again."""
        return self._measured_at is None or _elapsed_seconds() - self._measured_at >= MEASURED_EVERY_SECONDS

    def begin(self) -> float:
        """Call before asking the database for its time; pass the result to `end`."""
        return _elapsed_seconds()

    def end(self, began: float, database_ms: int) -> None:
        """Adopt the database's answer, as its time in the middle between the question and now."""
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
