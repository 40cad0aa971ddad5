"""Durable files: created whole and only once, with flushed directory entries.

Rule of this file: when a function returns, the bytes are on the disk. Otherwise it raises.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryostore.core.digest import Buffer
from cryostore.core.errors import (
    DISK_FULL_ERRNOS,
    BlobExistsError,
    BlobNotFoundError,
    CryostoreError,
    StorageFullError,
    StorageUnavailableError,
)
from cryostore.core.ids import random_id

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
TEMPORARY_PREFIX = "~"  # no blob key may contain it
STAGING = f"{TEMPORARY_PREFIX}staging"
BUFFERS_PER_WRITE_MAX = 512  # IOV_MAX is 1,024 on Linux, less elsewhere

OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def storage_error(error: OSError, what: str) -> CryostoreError:
    """Return the Cryostore error for an OSError; `what` names the file."""
    kind: type[CryostoreError] = StorageUnavailableError
    if isinstance(error, ABSENT):
        kind = BlobNotFoundError
    elif isinstance(error, FileExistsError):
        kind = BlobExistsError
    elif error.errno in DISK_FULL_ERRNOS:
        return StorageFullError.of_disk(what)
    return kind(f"{what}: {error.strerror or error}")


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Translate every OSError of the block with `storage_error`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, what) from error


def write_all(descriptor: int, buffers: Sequence[Buffer], offset: int) -> int:
    """Write all buffers one behind the other at `offset`; return the end.

    Raises OSError, perhaps after a part was written.
    """
    pending = [memoryview(buffer) for buffer in buffers if len(buffer)]
    while pending:
        written = os.pwritev(descriptor, pending[:BUFFERS_PER_WRITE_MAX], offset)
        if not written:
            raise OSError(errno.ENOSPC, "nothing could be written")
        offset += written
        done = 0
        while done < len(pending) and written >= len(pending[done]):
            written -= len(pending[done])
            done += 1
        del pending[:done]
        if written:
            pending[0] = pending[0][written:]
    return offset


def sync_directory(path: Path) -> None:
    """Flush the entries of a directory. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Create a directory and its parents, and flush their entries. Raises OSError.

    Also flushes entries that exist already, because another process may have created one and not flushed it yet.
    """
    if not path.parent.is_dir():
        make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=DIRECTORY_MODE)
    sync_directory(path.parent)


def create_file(path: Path, data: Buffer, *, staging: Path) -> None:
    """Create `path` with mode 0600 and this content: durable, whole for every observer, never over an existing file.

    `staging` is a directory on the same file system. A crash may leave a file there, which `sweep_staging` deletes.
    Raises FileExistsError, or another OSError; after the latter the file may exist all the same.
    """
    descriptor, temporary = staged_file(staging)
    try:
        write_all(descriptor, [data], 0)
        os.fsync(descriptor)
        os.link(temporary, path)  # unlike rename, never replaces
        sync_directory(path.parent)
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def staged_file(staging: Path) -> tuple[int, Path]:
    """Create a file with mode 0600, open for writing and protected from `sweep_staging`. The caller deletes it.

    Raises OSError.
    """
    while True:
        path = staging / f"{TEMPORARY_PREFIX}{random_id()}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # the lock shows the sweeper that we are alive
            if os.fstat(descriptor).st_nlink:
                return descriptor, path
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the sweeper was faster than our lock


def sweep_staging(staging: Path) -> None:
    """Delete files that dead processes left in `staging`. Raises OSError."""
    for path in staging.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)
