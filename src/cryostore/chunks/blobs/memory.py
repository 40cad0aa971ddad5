"""Blobs in the memory of this process, for tests and trials. Durable means: until the process ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from cryostore.chunks.blobs.key import check_key
from cryostore.core.digest import Buffer
from cryostore.core.errors import BlobExistsError, BlobNotFoundError, DamagedDataError


class MemoryBlobs:
    """A BlobStore, Appendable, in a dict."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytearray] = {}
        self._owned: set[str] = set()
        self._lock = threading.RLock()

    def put(self, key: str, data: Buffer) -> None:
        """See BlobStore."""
        self._create(key, bytearray(data))

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See BlobStore."""
        if offset < 0 or (length or 0) < 0:
            raise ValueError("offset and length are not negative")
        with self._lock:
            blob = self._find(key)
            end = len(blob) if length is None else offset + length
            if offset > len(blob) or end > len(blob):
                raise DamagedDataError(f"blob {key} ends at {len(blob)}, before the range {offset}..{end}")
            return bytes(memoryview(blob)[offset:end])

    def stat(self, key: str) -> int | None:
        """See BlobStore."""
        blob = self._blobs.get(check_key(key))
        return None if blob is None else len(blob)

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """See BlobStore."""
        with self._lock:
            keys = sorted(self._blobs)
        return (key for key in keys if key.startswith(prefix) and key > after)

    def delete(self, key: str) -> None:
        """See BlobStore."""
        with self._lock:
            self._blobs.pop(check_key(key), None)

    def close(self) -> None:
        """See BlobStore."""

    def open_append(self, key: str) -> MemoryAppender:
        """See Appendable."""
        with self._lock:
            blob = self._create(key, bytearray())
            self._owned.add(key)
        return MemoryAppender(blob, self._lock, lambda: self._owned.discard(key))

    def owned(self, key: str) -> bool:
        """See Appendable."""
        with self._lock:
            self._find(key)
            return key in self._owned

    def cut(self, key: str, size: int) -> bool:
        """See Appendable."""
        with self._lock:
            blob = self._find(key)
            if key in self._owned:
                return False
            del blob[size:]
            return True

    def _create(self, key: str, blob: bytearray) -> bytearray:
        with self._lock:
            if self._blobs.setdefault(check_key(key), blob) is not blob:
                raise BlobExistsError(f"blob {key} exists")
            return blob

    def _find(self, key: str) -> bytearray:
        try:
            return self._blobs[check_key(key)]
        except KeyError:
            raise BlobNotFoundError(f"blob {key} does not exist") from None


class MemoryAppender:
    """The Appender of MemoryBlobs."""

    def __init__(self, blob: bytearray, lock: threading.RLock, close: Callable[[], None]) -> None:
        self._blob = blob
        self._lock = lock
        self.close = close

    @property
    def size(self) -> int:
        """See Appender."""
        return len(self._blob)

    def append(self, buffers: Sequence[Buffer]) -> int:
        """See Appender."""
        with self._lock:  # a bytearray that is being read cannot grow
            offset = len(self._blob)
            self._blob += b"".join(buffers)
            return offset

    def sync(self) -> None:
        """See Appender."""
