"""Growing local blobs: each has one owner, which holds a lock on the file; a failed write is cut off again."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryostore.chunks.durable_files import FILE_MODE, storage_error, sync_directory, write_all
from cryostore.core.digest import Buffer
from cryostore.core.errors import DISK_FULL_ERRNOS, StorageUnavailableError
from cryostore.core.limits import MIB

sync_data = getattr(os, "fdatasync", os.fsync)
DROPPED_BYTES_MIN = MIB
PAGE_BYTES = 4096


class LocalAppender:
    """The Appender of LocalBlobs. The constructor creates the file durably; raises OSError."""

    def __init__(self, path: Path, key: str) -> None:
        self._key = key
        self._path = path.absolute()
        self._size = 0
        self._dropped = 0
        self._failure: OSError | None = None
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            sync_directory(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            self.close()
            raise

    @property
    def size(self) -> int:
        """See Appender."""
        return self._size

    def append(self, buffers: Sequence[Buffer]) -> int:
        """See Appender."""
        self._check()
        offset = self._size
        try:
            end = write_all(self._descriptor, buffers, offset)
        except OSError as error:
            self._cut_back(offset)
            raise storage_error(error, f"blob {self._path}") from error
        self._size = end
        return offset

    def sync(self) -> None:
        """See Appender."""
        self._check()
        size = self._size
        try:
            sync_data(self._descriptor)
        except OSError as error:
            # The kernel has dropped the pages and forgotten the failure: a second fdatasync would lie.
            self._failure = error
            if error.errno in DISK_FULL_ERRNOS:  # some file systems look for room only now
                raise storage_error(error, f"blob {self._path}") from error
            raise StorageUnavailableError(f"blob {self._key} could not be flushed: {error.strerror}") from error
        if size - self._dropped >= DROPPED_BYTES_MIN:
            self._drop_cached(size)

    def close(self) -> None:
        """See Appender."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # everything that counts is flushed
                os.close(descriptor)

    def _drop_cached(self, size: int) -> None:
        """Tell the kernel that flushed bytes need not stay in memory.

        Backups are read rarely and much later. Reusing their pages for the next chunks saves the kernel from finding
        and clearing fresh ones: see docs/explanation/performance.md.
        """
        with contextlib.suppress(AttributeError, OSError):  # advice: not every system takes it
            os.posix_fadvise(self._descriptor, self._dropped, size - self._dropped, os.POSIX_FADV_DONTNEED)
        self._dropped = size - size % PAGE_BYTES

    def _check(self) -> None:
        if self._failure:
            raise StorageUnavailableError(f"blob {self._key} failed before: {self._failure.strerror}")
        if self._descriptor < 0:
            raise StorageUnavailableError(f"blob {self._key} is closed")

    def _cut_back(self, size: int) -> None:
        """Remove what a failed write left. A file that cannot be cut is not used again."""
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            self._failure = error
            raise StorageUnavailableError(f"blob {self._key} could not be cut back: {error.strerror}") from error


def file_owned(path: Path) -> bool:
    """`Appendable.owned` for one file. Raises OSError."""
    with _unowned(path, os.O_RDONLY, fcntl.LOCK_SH) as descriptor:
        return descriptor is None


def cut_file(path: Path, size: int) -> bool:
    """`Appendable.cut` for one file. Raises OSError."""
    with _unowned(path, os.O_RDWR, fcntl.LOCK_EX) as descriptor:
        if descriptor is None:
            return False
        if os.fstat(descriptor).st_size > size:
            os.ftruncate(descriptor, size)
        os.fsync(descriptor)
        with contextlib.suppress(AttributeError, OSError):  # so that later reads come from the disk
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return True


@contextlib.contextmanager
def _unowned(path: Path, flags: int, lock: int) -> Iterator[int | None]:
    """Yield a descriptor of the file, locked during the block; None if its owner is alive."""
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)
