"""Reading local blobs through cached descriptors: opening a pack for each chunk would double the cost of a read."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from pathlib import Path

from cryostore.chunks.durable_files import OUT_OF_DESCRIPTORS, storage_error
from cryostore.core.errors import DamagedDataError

OPEN_FILES_MAX = 64


class OpenFile:
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


class OpenFiles:
    """The most recently read files below `root`, at most OPEN_FILES_MAX of them open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
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

    def _open(self, key: str) -> tuple[OpenFile, int]:
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

    def _open_anew(self, key: str) -> OpenFile:
        """Open the file. If this process has no descriptors left, close the cached ones first."""
        try:
            return OpenFile(self._root / key)
        except OSError as error:
            if error.errno not in OUT_OF_DESCRIPTORS:
                raise
        self.close()
        return OpenFile(self._root / key)
