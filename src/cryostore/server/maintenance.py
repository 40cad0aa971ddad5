"""The one background thread of a worker: it calls `service.maintain()` from time to time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cryostore.server.log import Log


class Maintenance:
    """Calls `maintain` every `period_seconds`; what goes wrong is logged and tried again. A context manager."""

    def __init__(self, maintain: Callable[[], None], *, period_seconds: float, log: Log) -> None:
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
        while not self._stop.wait(self._period_seconds):
            try:
                self._maintain()
            except Exception as error:  # noqa: BLE001 - a duty that failed once must not end all later ones
                self._log.failure("maintenance failed", error)
