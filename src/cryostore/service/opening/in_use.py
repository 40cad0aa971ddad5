"""Lock of a data directory: shared by any number of services, or held alone by one program."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from cryostore.core.errors import ConfigurationError, StorageUnavailableError

LOCK = "in-use.lock"


class InUse:
    """The shared lock of a service, held until `close` or the end of the process.

    Raises ConfigurationError while a program holds the exclusive lock, StorageUnavailableError.
    """

    def __init__(self, data_dir: Path) -> None:
        self._descriptor = _lock(
            data_dir, fcntl.LOCK_SH, "its catalog is being rebuilt", hint="wait for `cryo rebuild-catalog` to end"
        )

    def close(self) -> None:
        """Release the lock. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextlib.contextmanager
def sole_use(data_dir: Path) -> Iterator[None]:
    """Hold the exclusive lock. Raises ConfigurationError while a service holds the shared one."""
    descriptor = _lock(
        data_dir, fcntl.LOCK_EX, "a server or another program uses it", hint="stop `cryo serve` and try again"
    )
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(data_dir: Path, how: int, reason: str, *, hint: str) -> int:
    try:
        descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageUnavailableError(f"{data_dir} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(f"{data_dir} cannot be used: {reason}", hint=hint) from None
    return descriptor
