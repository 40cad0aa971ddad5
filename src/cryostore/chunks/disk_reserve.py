"""The reserve: room on the disk that ordinary writes never get, so that a full disk can still be cleared.

It is a file of really allocated bytes beside the data. While it is there, everybody may write. Whoever wants to free
space and meets a full disk removes it and goes on in the room it leaves; from then on every process of the store
refuses ordinary writes, until there is room for the reserve and as much again, and somebody takes it back.

The file is whole or absent for every observer, so a crash at any point leaves one of the two states. Does not live
here: which writes are ordinary (`service.reserve`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
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
"""The reserve is at most so small a part of the disk."""
TRY_AGAIN_SECONDS = 1.0
"""How long after an attempt that failed refused writes do not try to make the reserve."""

Answer = TypeVar("Answer")


class DiskReserve:
    """The reserve of the data in `directory`: `bytes_wanted`, less on a small disk; 0: nothing is ever refused.

    Safe to use from many threads and processes. Touches nothing until it is asked.
    """

    def __init__(self, directory: Path, bytes_wanted: int) -> None:
        self._directory = directory
        self._path = directory / FILE
        self._bytes_wanted = bytes_wanted
        self._taking = threading.Lock()
        self._failed = float("-inf")
        self._failure: OSError | None = None
        self._spenders = threading.local()

    @property
    def held(self) -> bool:
        """Whether ordinary writes are taken. One look at a directory entry: cheap enough for each write."""
        if not self._bytes_wanted:
            return True
        try:
            os.stat(self._path)  # noqa: PTH116 - half the price of Path.stat, and paid by each write
        except FileNotFoundError:
            return False
        except OSError:
            return True  # it will show in the write itself, under its own name
        return True

    @property
    def has_disk(self) -> bool:
        """Whether there is a disk that can be full."""
        return self._directory.is_dir()

    @property
    def free_bytes(self) -> int:
        """How much more the disk takes. Raises StorageUnavailableError."""
        with storage_errors(f"{self._directory}"):
            status = os.statvfs(self._directory)
        return status.f_bavail * status.f_frsize

    @property
    def size_bytes(self) -> int:
        """How large the reserve is on this disk. Raises StorageUnavailableError."""
        with storage_errors(f"{self._directory}"):
            status = os.statvfs(self._directory)
        return min(self._bytes_wanted, status.f_blocks * status.f_frsize // DISK_SHARE)

    def check(self) -> None:
        """Refuse an ordinary write while the reserve is in use. Raises StorageUnavailableError, usually …FullError.

        Takes the reserve back if there is room; after an attempt that failed it waits a little.
        """
        if self.held or (monotonic() - self._failed >= TRY_AGAIN_SECONDS and self.take_back()):
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
        """Within the block, this thread frees space: what it does in `spend` may use the reserve."""
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
        """Do `action`, and where it finds the disk full, give the reserve up and do it once more.

        `action` leaves nothing behind if it raises StorageFullError. Outside of `spending` it is an ordinary write:
        then it is refused, as `check` does, while the reserve is in use.
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
        """Leave the room to whoever frees space. False if there was nothing to give: it is gone, or cannot be removed.

        From now on every process of the store refuses ordinary writes.
        """
        try:
            self._path.unlink()
        except OSError:
            return False
        with contextlib.suppress(OSError):
            sync_directory(self._directory)  # some file systems give the room back only then
        return True

    def take_back(self) -> bool:
        """Make the reserve anew if there is room for it and as much again; answers whether it is there.

        Whoever waits for the outcome of another thread's attempt is told that it is not.
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
            self._failed = monotonic()
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
            with contextlib.suppress(FileExistsError):  # another process was quicker: one reserve is enough
                os.link(temporary, self._path)
            sync_directory(self._directory)
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


NO_RESERVE = DiskReserve(Path(os.devnull), 0)
"""For stores without a disk."""
