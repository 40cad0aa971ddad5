"""Note of the unfinished backup job on this machine, so that the next run resumes it after a crash.

The store keeps the data that the killed run sent as long as its job is open. The next run continues the job and sends
no acknowledged chunk again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from cryostore.core.errors import ConfigurationError

NOTE_BYTES_MAX = 4096


class ResumeNote:
    """The locked file that holds the id of the job in progress."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def job_id(self) -> str:
        """Return the job that a run started and did not end; empty if there is none."""
        note = os.pread(self._fd, NOTE_BYTES_MAX, 0)
        return note.decode("ascii", "replace").strip()

    def save(self, job_id: str) -> None:
        """Record the job in progress. A full disk is ignored: then a killed run is not resumed."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, job_id.encode(), 0)

    def clear(self) -> None:
        """Record that the job has ended. If that fails, the next run finds that the job is no longer open."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)


@contextmanager
def locked_note(folder: str | Path | None, *names: str) -> Iterator[ResumeNote | None]:
    """Lock the note for a store, a vault and a resource (`names`) in `folder`, which is created if needed.

    Yields None without a folder, or if the folder cannot be used: then the job of a killed run blocks further runs
    until the store ends it. Raises ConfigurationError while another run holds the lock.
    """
    fd = (
        None
        if folder is None
        else _open(folder, sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest())
    )
    if fd is None:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                "a backup of this resource is already running on this machine",
                hint="wait for it, or give another --resource",
            ) from None
        yield ResumeNote(fd)
    finally:
        os.close(fd)


def _open(folder: str | Path, name: str) -> int | None:
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return os.open(os.path.join(folder, f"{name}.job"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
