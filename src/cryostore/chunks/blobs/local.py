"""Blobs as files in one directory of a local file system, shared by any number of processes.

A key is the path below the root. Directories have mode 0700, files 0600. Names that start with `~` are never blobs.

In this module: the store; reading through cached descriptors, because opening a pack for each chunk would double the
cost of a read; and growing blobs. A growing blob has one owner, which holds a lock on the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryostore.chunks.blobs.key import SEGMENT_PATTERN, check_key
from cryostore.chunks.durable_files import (
    ABSENT,
    DIRECTORY_MODE,
    FILE_MODE,
    OUT_OF_DESCRIPTORS,
    STAGING,
    create_file,
    make_directory,
    storage_error,
    storage_errors,
    sweep_staging,
    sync_directory,
    write_all,
)
from cryostore.core.digest import Buffer
from cryostore.core.errors import DISK_FULL_ERRNOS, DamagedDataError, StorageUnavailableError
from cryostore.core.limits import MIB

OPEN_FILES_MAX = 64
DROPPED_BYTES_MIN = MIB
PAGE_BYTES = 4096
_sync_data = getattr(os, "fdatasync", os.fsync)


class LocalBlobs:
    """A BlobStore, Appendable, in a directory, which is created if missing."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = _OpenFiles(root)
        self._durable_directories: set[Path] = {root}
        self._staging = root / STAGING
        with storage_errors(f"blob directory {root}"):
            if root.is_dir():
                with contextlib.suppress(PermissionError):  # the folder above may be unreadable for this user
                    sync_directory(root.parent)  # the process that created it may not have flushed it
            else:
                make_directory(root)
            self._staging.mkdir(mode=DIRECTORY_MODE, exist_ok=True)  # its content need not survive a power failure
            sweep_staging(self._staging)

    def put(self, key: str, data: Buffer) -> None:
        """See BlobStore."""
        path = self._root / check_key(key)
        with storage_errors(f"blob {path}"):
            self._make_durable(path.parent)
            create_file(path, data, staging=self._staging)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See BlobStore."""
        return self._files.read(check_key(key), offset, length)

    def stat(self, key: str) -> int | None:
        """See BlobStore."""
        path = self._root / check_key(key)
        with storage_errors(f"blob {key}"), contextlib.suppress(*ABSENT):
            return None if path.is_dir() else path.stat().st_size
        return None

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """See BlobStore."""
        with storage_errors(f"blobs under {prefix!r}"):
            yield from self._walk("", prefix, after)

    def delete(self, key: str) -> None:
        """See BlobStore."""
        path = self._root / check_key(key)
        self._files.forget(key)
        with storage_errors(f"blob {key}"), contextlib.suppress(*ABSENT):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            # Also if it is gone: the process that removed it may have died before its flush.
            sync_directory(path.parent)

    def close(self) -> None:
        """See BlobStore."""
        self._files.close()

    def forget_deleted(self) -> None:
        """See Caching."""
        self._files.forget_deleted()

    def open_append(self, key: str) -> _LocalAppender:
        """See Appendable."""
        path = self._root / check_key(key)
        with storage_errors(f"blob {path}"):
            self._make_durable(path.parent)
            return _LocalAppender(path, key)

    def owned(self, key: str) -> bool:
        """See Appendable."""
        path = self._root / check_key(key)
        with storage_errors(f"blob {key}"):
            return _file_owned(path)

    def cut(self, key: str, size: int) -> bool:
        """See Appendable."""
        path = self._root / check_key(key)
        with storage_errors(f"blob {key}"):
            return _cut_file(path, size)

    def _make_durable(self, directory: Path) -> None:
        """Create a directory below the root durably. Costs nothing if this process did it before."""
        if directory not in self._durable_directories:
            self._make_durable(directory.parent)
            make_directory(directory)
            self._durable_directories.add(directory)

    def _walk(self, base: str, prefix: str, after: str) -> Iterator[str]:
        """Yield the keys below the directory `base` ("" or with a trailing slash) in key order."""
        try:
            with os.scandir(self._root / base) as entries:
                # a directory sorts as its children do: "a-b" < "a.b" < "a/b"
                names = sorted(
                    f"{entry.name}/" if entry.is_dir() else entry.name
                    for entry in entries
                    if SEGMENT_PATTERN.fullmatch(entry.name)  # other files are no blobs
                )
        except FileNotFoundError:
            if not base:
                raise  # an empty listing would be wrong
            return
        for name in names:
            key = base + name
            if not name.endswith("/"):
                if key.startswith(prefix) and key > after:
                    yield key
            elif (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key)):
                yield from self._walk(key, prefix, after)


class _OpenFile:
    """A descriptor that closes when it has no users any more, so that it is never closed during a read."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # AttributeError: the file could not be opened
            os.close(self.descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes; fewer only at the end of the file."""
        data = os.pread(self.descriptor, length, offset)
        while len(data) < length and (more := os.pread(self.descriptor, length - len(data), offset + len(data))):
            data += more
        return data


class _OpenFiles:
    """The most recently read files below `root`, at most OPEN_FILES_MAX of them open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: OrderedDict[str, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, key: str, offset: int, length: int | None) -> bytes:
        """`BlobStore.get` for the file of this key."""
        if offset < 0 or (length or 0) < 0:
            raise ValueError("offset and length are not negative")
        try:
            file, size = self._open(key)
            wanted = max(size - offset, 0) if length is None else length
            data = file.read(offset, wanted) if offset + wanted <= size else b""
        except OSError as error:
            raise storage_error(error, f"blob {key}") from error
        if offset > size or len(data) < wanted:
            raise DamagedDataError(f"blob {key} ends at {size}, before the range {offset}..{offset + wanted}")
        return data

    def forget(self, key: str) -> None:
        """Close the file of this key after the last read ends."""
        with self._lock:
            self._files.pop(key, None)

    def forget_deleted(self) -> None:
        """Close files that another process deleted, after their last read ends: only then is their room free."""
        with self._lock:
            files = list(self._files.items())
        gone = [key for key, file in files if not os.fstat(file.descriptor).st_nlink]
        for key in gone:
            self.forget(key)

    def close(self) -> None:
        """Close all files after their last read ends."""
        with self._lock:
            self._files.clear()

    def _open(self, key: str) -> tuple[_OpenFile, int]:
        """Return the file and its current size. Opens a file again that was deleted meanwhile."""
        with self._lock:
            file = self._files.get(key)
            if file:
                self._files.move_to_end(key)
        if file:
            status = os.fstat(file.descriptor)
            if status.st_nlink:
                return file, status.st_size
        file = self._open_anew(key)
        with self._lock:
            self._files[key] = file
            self._files.move_to_end(key)
            if len(self._files) > OPEN_FILES_MAX:
                self._files.popitem(last=False)
        return file, os.fstat(file.descriptor).st_size

    def _open_anew(self, key: str) -> _OpenFile:
        """Open the file. If this process has no descriptors left, close the cached ones first."""
        try:
            return _OpenFile(self._root / key)
        except OSError as error:
            if error.errno not in OUT_OF_DESCRIPTORS:
                raise
        self.close()
        return _OpenFile(self._root / key)


class _LocalAppender:
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
            _sync_data(self._descriptor)
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


def _file_owned(path: Path) -> bool:
    """`Appendable.owned` for one file. Raises OSError."""
    with _unowned(path, os.O_RDONLY, fcntl.LOCK_SH) as descriptor:
        return descriptor is None


def _cut_file(path: Path, size: int) -> bool:
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
