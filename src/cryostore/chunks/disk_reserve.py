"""Disk reserve: room that ordinary writes never get, so that a full disk can still be cleared.

The reserve is a file of allocated bytes beside the data. While it exists, all writes are accepted. A process that
frees space and meets a full disk deletes the file and continues in the room that this gives. From then on every process
of the store refuses ordinary writes, until a process finds room for the reserve and as much again, and creates it.

The file is whole or absent for every observer, so a crash at any point leaves one of these two states. Not here: which
writes are ordinary (`service.reserve`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from cryostore.chunks.durable_files import (
    STAGING,
    TEMPORARY_PREFIX,
    make_directory,
    staged_file,
    storage_errors,
    sync_directory,
)
from cryostore.core.errors import DISK_FULL_ERRNOS, StorageFullError, StorageUnavailableError

FILE = f"{TEMPORARY_PREFIX}reserve"
DISK_SHARE = 8
"""The reserve takes at most one part in this many of the disk."""
TRY_AGAIN_SECONDS = 1.0
"""How long after a failed attempt refused writes do not try again to create the reserve."""

Answer = TypeVar("Answer")


class DiskReserve:
    """The reserve for the data in `directory`: `bytes_wanted`, less on a small disk. With 0 no write is ever refused.

    Safe to use from many threads and processes. Does nothing until a method is called.
    """

    def __init__(self, directory: Path, bytes_wanted: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._path = directory / FILE
        self._bytes_wanted = bytes_wanted
        self._monotonic = monotonic
        self._taking = threading.Lock()
        self._failed = float("-inf")
        self._failure: OSError | None = None
        self._spenders = threading.local()

    @property
    def held(self) -> bool:
        """Whether ordinary writes are accepted. One lookup of a directory entry: cheap enough for every write."""
        if not self._bytes_wanted:
            return True
        try:
            os.stat(self._path)  # noqa: PTH116 - half the price of Path.stat, and paid by each write
        except FileNotFoundError:
            return False
        except OSError:
            return True  # the write itself will raise it
        return True

    @property
    def has_disk(self) -> bool:
        """Whether there is a disk that can be full."""
        return self._directory.is_dir()

    @property
    def free_bytes(self) -> int:
        """Free space on the disk. Raises StorageUnavailableError."""
        with storage_errors(f"{self._directory}"):
            status = os.statvfs(self._directory)
        return status.f_bavail * status.f_frsize

    @property
    def size_bytes(self) -> int:
        """Size of the reserve on this disk. Raises StorageUnavailableError."""
        with storage_errors(f"{self._directory}"):
            status = os.statvfs(self._directory)
        return min(self._bytes_wanted, status.f_blocks * status.f_frsize // DISK_SHARE)

    def check(self) -> None:
        """Refuse an ordinary write while the reserve is in use.

        Raises StorageFullError or another StorageUnavailableError. Creates the reserve again if there is room for it.
        After a failed attempt it waits a little before the next one.
        """
        if self.held or (self._monotonic() - self._failed >= TRY_AGAIN_SECONDS and self.take_back()):
            return
        failure = self._failure
        if failure is not None:
            raise StorageUnavailableError(f"the reserve cannot be made: {failure.strerror}") from failure
        lacking = max(2 * self.size_bytes - self.free_bytes, 1)
        raise StorageFullError.of_disk(
            str(self._directory.absolute()),
            lacking,
            hint="delete recovery points and run `cryo gc`, or enlarge the disk",
        )

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Within the block this thread frees space: its calls of `spend` may use the reserve."""
        before = self.may_spend
        self._spenders.here = True
        try:
            yield
        finally:
            self._spenders.here = before

    @property
    def may_spend(self) -> bool:
        """Whether this thread is within `spending`."""
        return getattr(self._spenders, "here", False)

    def spend(self, action: Callable[[], Answer]) -> Answer:
        """Run `action`; if it finds the disk full, give up the reserve and run it once more.

        `action` must leave nothing behind if it raises StorageFullError. Outside of `spending` it counts as an ordinary
        write, and is refused while the reserve is in use; see `check`.
        """
        if not self.may_spend:
            self.check()
            return action()
        there = self.held
        try:
            return action()
        except StorageFullError:
            if not self.give_up() and not there:
                raise
            return action()

    def give_up(self) -> bool:
        """Delete the reserve for a write that frees space. Return False if it does not exist or cannot be deleted.

        From now on every process of the store refuses ordinary writes.
        """
        try:
            self._path.unlink()
        except OSError:
            return False
        with contextlib.suppress(OSError):
            sync_directory(self._directory)  # some file systems free the room only then
        return True

    def take_back(self) -> bool:
        """Create the reserve again if there is room for it and as much again; return whether it exists.

        Returns False at once while another thread is trying.
        """
        if self.held:
            return True
        if not self._taking.acquire(blocking=False):
            return False
        try:
            self._failure = None
            size = self.size_bytes
            if self.free_bytes >= 2 * size:
                self._make(size)
        except OSError as error:
            self._failed = self._monotonic()
            self._failure = None if error.errno in DISK_FULL_ERRNOS else error
        finally:
            self._taking.release()
        return self.held

    def _make(self, size: int) -> None:
        """Allocate a file of this size and give it its name. Raises OSError."""
        staging = self._directory / STAGING
        make_directory(staging)
        descriptor, temporary = staged_file(staging)
        try:
            os.posix_fallocate(descriptor, 0, max(size, 1))
            os.fsync(descriptor)
            with contextlib.suppress(FileExistsError):  # another process was faster: one reserve is enough
                os.link(temporary, self._path)
            sync_directory(self._directory)
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


NO_RESERVE = DiskReserve(Path(os.devnull), 0)
"""For stores without a disk."""
