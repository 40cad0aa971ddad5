"""Periodic tasks of a worker: a background thread that calls a long task rarely and a recovery task often."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from cryostore.server.monitoring.failure import Failures
from cryostore.server.monitoring.log import Log

RECOVERY_SECONDS = 1.0


class PeriodicTasks:
    """Calls `maintain` every `period_seconds`, and `recover` at least every second; a context manager.

    A failure is logged, and the next period tries again.
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
            self._run_task(self._recover)
            if monotonic() >= due:
                self._run_task(self._maintain)
                due = monotonic() + self._period_seconds

    def _run_task(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # noqa: BLE001 - one failure must not end all later rounds
            self._log.failure("maintenance failed", error)
