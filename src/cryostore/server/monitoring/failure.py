"""Internal failures: the API error that a caller gets, and the log line that tells the operator.

Foreseen failures come in floods: each request meets the same full disk, the same damaged pack. All are counted, and
logged in few lines without tracebacks: one line per kind and period, with the number of failures held back since the
line before. Unexpected failures are logged with a traceback. Details go to the log only, never to the caller.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from cryostore.core.errors import (
    DISK_FULL_ERRNOS,
    CryostoreError,
    DamagedDataError,
    KeyMissingError,
    KeyUnavailableError,
    StorageFullError,
    StorageUnavailableError,
)
from cryostore.model.errors import (
    DamagedDataException,
    KMSInvalidKeyUsageException,
    ModelError,
    ServiceInternalException,
    ServiceUnavailableException,
)
from cryostore.server.monitoring.log import Log
from cryostore.server.monitoring.metrics import Meter

FORESEEN = (StorageUnavailableError, DamagedDataError, KeyUnavailableError)
LINE_SECONDS = 10.0
"""How often a failure of one kind gets a line in the log of one process."""
KINDS = {
    **dict.fromkeys(DISK_FULL_ERRNOS, "full"),
    errno.EROFS: "read-only",
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.EIO: "input/output",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
}
ADVICE = {
    "full": "delete recovery points and run `cryo gc`, or enlarge the disk; writes then resume without a restart",
    "read-only": "find out why the file system is read-only, check it, and mount it writable again",
    "input/output": "check the system log; if the disk is failing, stop writing to it and restore from your copy",
    "open files": "raise the limit of open files (ulimit -n, LimitNOFILE), or connect fewer clients at once",
    "damaged": "run `cryo check`, which names the affected recovery points; backups repair data that they read again",
    "key": "run `cryo key list` to see which keys are missing, and start with the right keyring",
    "permission": "let the user of the server read and write its data directory",
    "catalog": "check that the database runs and can be reached from here; `cryo doctor` helps",
    "blobs": "check that the blob store answers, and this machine's clock, credentials and route; `cryo doctor` helps",
    "unavailable": "see the message; the request may be retried",
}
EVENTS = {"damaged": "damaged data", "key": "key not available"}
"""The event of a log line by kind; of other kinds `storage failure`."""


def api_error(error: Exception) -> ModelError:
    """Return the API's error for `error`: itself if it is one."""
    if isinstance(error, ModelError):
        return error
    if isinstance(error, StorageUnavailableError):
        return ServiceUnavailableException("the storage is unavailable; retry later")
    if isinstance(error, KeyMissingError):
        return ServiceUnavailableException(
            f"this server lacks master key {error.key_id}, which another server may have; retry later"
        )
    if isinstance(error, KeyUnavailableError):
        return KMSInvalidKeyUsageException("the key that protects this data cannot be used")
    if isinstance(error, DamagedDataError):
        return DamagedDataException("stored data is damaged or lost")
    return ServiceInternalException("an internal failure; the server's log has the details under this request id")


def logged_cause(error: Exception) -> BaseException | None:
    """Return the internal failure behind `error` that belongs in the log; None if the caller is at fault."""
    if not isinstance(error, ModelError):
        return error
    inside = error.__cause__
    return inside if isinstance(inside, CryostoreError) and not isinstance(inside, ModelError) else None


def system_error(error: BaseException) -> OSError | None:
    """Return the system error that caused `error`; None if there is none."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__
    return found


def kind_of(error: CryostoreError) -> str:
    """Return the kind of a failure, one of `metrics.FAILURES`."""
    if isinstance(error, DamagedDataError):
        return "damaged"
    if isinstance(error, KeyUnavailableError):
        return "key"
    if isinstance(error, StorageFullError):
        return "full"
    inside = system_error(error)
    if inside is not None and inside.errno in KINDS:
        return KINDS[inside.errno]
    if isinstance(error, StorageUnavailableError) and error.part:
        return error.part
    return "unavailable" if inside is None else "input/output"


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group and of the groups in it; an error that is no group is the only one."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


class Failures:
    """Counts and logs internal failures. Thread safe."""

    def __init__(self, log: Log, meter: Meter, *, now: Callable[[], float] = monotonic) -> None:
        self.meter = meter
        self._log = log
        self._now = now
        self._lock = threading.Lock()
        self._logged: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        """Log a failure: briefly and at a limited rate if it was foreseen, otherwise with its traceback."""
        for one in leaves(error):
            if isinstance(one, FORESEEN):
                self._report(one, fields)
            else:
                self._log.failure(event, one, **fields)

    def _report(self, error: CryostoreError, fields: dict[str, Any]) -> None:
        kind = kind_of(error)
        self.meter.failure(kind)
        subject = kind
        if isinstance(error, KeyMissingError):  # each missing key has its own lines
            subject, fields = f"key {error.key_id}", fields | {"key_id": error.key_id}
        with self._lock:
            now = self._now()
            if now - self._logged.get(subject, float("-inf")) < LINE_SECONDS:
                self._held_back[subject] = self._held_back.get(subject, 0) + 1
                return
            self._logged[subject] = now
            held_back = self._held_back.pop(subject, 0)
        inside = system_error(error)
        self._log.write(
            "error",
            EVENTS.get(kind, "storage failure"),
            kind=kind,
            message=error.message,
            cause=None if inside is None else inside.strerror,
            hint=error.hint or ADVICE[kind],
            held_back=held_back or None,
            **fields,
        )
