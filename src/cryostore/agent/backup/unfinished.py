"""The job of a run that may have been killed: written down on this machine, so that the next run takes it over.

What the killed run sent is held by its job. While that is open, the next run goes on with it, and nothing that was
acknowledged is sent again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256

from cryostore.core.errors import ConfigurationError

NOTE_BYTES_MAX = 4096


class Unfinished:
    """A note of the job that is under way. One run at a time has it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def job_id(self) -> str:
        """The job that a run began and did not end; empty if there is none."""
        note = os.pread(self._fd, NOTE_BYTES_MAX, 0)
        return note.decode("ascii", "replace").strip()

    def begin(self, job_id: str) -> None:
        """Note that a job is under way, if there is room for a note."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, job_id.encode(), 0)

    def end(self) -> None:
        """Note that it has ended. If that fails, the next run finds that the job is no longer open."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)


@contextmanager
def noted(folder: str | None, *what: str) -> Iterator[Unfinished | None]:
    """The note for a store, a vault and a resource, in a folder that is made if need be; None without a folder.

    Raises ConfigurationError while another run has it. A folder that cannot be used is done without: then a killed
    run's job stands in the way until the store ends it.
    """
    fd = (
        None
        if folder is None
        else _open(folder, sha256("\0".join(what).encode("utf-8", "surrogateescape")).hexdigest())
    )
    if fd is None:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                "a backup of this resource is running on this machine", hint="wait for it, or say another --resource"
            ) from None
        yield Unfinished(fd)
    finally:
        os.close(fd)


def _open(folder: str, name: str) -> int | None:
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return os.open(os.path.join(folder, f"{name}.job"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
