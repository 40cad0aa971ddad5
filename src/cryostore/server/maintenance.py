"""The one background thread of a worker: it calls `service.maintain()` from time to time, `service.recover()` often."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from cryostore.server.watching.failure import Failures
from cryostore.server.watching.log import Log

RECOVERY_SECONDS = 1.0


class Maintenance:
    """Calls `maintain` every `period_seconds`, and `recover` in between; a context manager.

    What goes wrong is logged and tried again.
    """

    def __init__(
        self,
        maintain: Callable[[], None],
        recover: Callable[[], None] = lambda: None,
        *,
        period_seconds: float,
        log: Log | Failures,
    ) -> None:
        self._recover = recover
        self._maintain = maintain
        self._period_seconds = period_seconds
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=self._period_seconds)

    def _run(self) -> None:
        due = monotonic() + self._period_seconds
        while not self._stop.wait(min(self._period_seconds, RECOVERY_SECONDS)):
            self._do(self._recover)
            if monotonic() >= due:
                self._do(self._maintain)
                due = monotonic() + self._period_seconds

    def _do(self, duty: Callable[[], None]) -> None:
        try:
            duty()
        except Exception as error:  # noqa: BLE001 - a duty that failed once must not end all later ones
            self._log.failure("maintenance failed", error)
