"""Blobs as files in one directory of a local file system, shared by any number of processes.

A key is the path below the root. Directories have mode 0700, files 0600. Names that start with `~` are never blobs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cryostore.chunks.blobs.key import SEGMENT_PATTERN, check_key
from cryostore.chunks.blobs.local_append import LocalAppender, cut_file, file_owned
from cryostore.chunks.blobs.local_read import OpenFiles
from cryostore.chunks.durable_files import (
    ABSENT,
    DIRECTORY_MODE,
    STAGING,
    create_file,
    make_directory,
    storage_errors,
    sweep_staging,
    sync_directory,
)
from cryostore.core.digest import Buffer


class LocalBlobs:
    """A BlobStore, Appendable, in a directory, which is created if missing."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = OpenFiles(root)
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
            sync_directory(
                path.parent
            )  # also if it is gone: the process that removed it may have died before its flush

    def close(self) -> None:
        """See BlobStore."""
        self._files.close()

    def forget_deleted(self) -> None:
        """See Caching."""
        self._files.forget_deleted()

    def open_append(self, key: str) -> LocalAppender:
        """See Appendable."""
        path = self._root / check_key(key)
        with storage_errors(f"blob {path}"):
            self._make_durable(path.parent)
            return LocalAppender(path, key)

    def owned(self, key: str) -> bool:
        """See Appendable."""
        path = self._root / check_key(key)
        with storage_errors(f"blob {key}"):
            return file_owned(path)

    def cut(self, key: str, size: int) -> bool:
        """See Appendable."""
        path = self._root / check_key(key)
        with storage_errors(f"blob {key}"):
            return cut_file(path, size)

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
