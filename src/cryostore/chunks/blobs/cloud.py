"""Blobs as objects of a cloud: S3 and compatible services, Google Cloud Storage, Azure. The only user of obstore.

Rules of this file:

- A blob is one conditional PUT: whole or absent, and never over another one. Multipart uploads are never used, so that
  none can be left behind.
- Retries happen here, not in the library. A PUT whose answer was lost may have arrived: if the key is taken afterwards,
  the blob there is read and compared.
- A blob counts as absent only if the service says so about the blob itself. A missing bucket, or a 404 from a proxy,
  is an outage: otherwise every blob would count as lost.
- A read returns as many bytes as were asked for. Whether they are the right ones, the reader verifies.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import obstore
from obstore.exceptions import BaseError

from cryostore.chunks.blobs.cloud_failure import FailureKind, RequestFailure, classify
from cryostore.chunks.blobs.cloud_url import CONNECTIONS_MAX, CloudUrl
from cryostore.chunks.blobs.key import KEY_PATTERN, check_key
from cryostore.core.digest import Buffer
from cryostore.core.errors import DamagedDataError
from cryostore.core.traffic import Traffic

TRY_AGAIN_SHARE = 1.2
"""No attempt begins later than this many times the longest request, so that a request that hangs is retried once."""
KEYS_PER_PAGE = 1000
FAILURES = {
    FailureKind.TRANSIENT: "passing",
    FailureKind.PERMANENT: "refused",
    FailureKind.UNPROVEN: "refused",
    FailureKind.FULL: "full",
}
"""Names under which the metrics count failures, by kind."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff: how long retries go on, and the delay between two attempts.

    The delay doubles up to a limit and varies with what is retried, so that many clients that were refused together do
    not return together. No attempt begins later than a limit after the first; the caller bounds how long one attempt
    takes. `monotonic` and `sleep` are parameters for tests.
    """

    begin_seconds_max: float
    delay_first_seconds: float = 0.1
    delay_seconds_max: float = 5.0
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def tries(self, what: str) -> Iterator[bool]:
        """Yield, for each attempt, whether it is the last one; sleep before all but the first."""
        end = self.monotonic() + self.begin_seconds_max
        number = 0
        while True:
            delay_seconds = self.delay_seconds(what, number)
            last = self.monotonic() + delay_seconds > end
            yield last
            if last:
                return
            self.sleep(delay_seconds)
            number += 1

    def delay_seconds(self, what: str, number: int) -> float:
        """Return the delay after attempt `number`, counted from 0: between half a limit that doubles and all of it."""
        bound = min(self.delay_seconds_max, self.delay_first_seconds * 2.0 ** min(number, 60))
        share = zlib.crc32(f"{what} {number}".encode()) / 0xFFFFFFFF
        return bound * (1 + share) / 2


class CloudBlobs:
    """A BlobStore, Gathering, in a cloud. It connects at its first use, and holds nothing but connections."""

    def __init__(self, url: CloudUrl, *, backoff: Backoff | None = None) -> None:
        self.store = url.open()
        self._name = f"{url.scheme}://{url.bucket}"
        self._folder = f"{url.prefix}/" if url.prefix else ""
        self._backoff = backoff or Backoff(url.request_seconds_max * TRY_AGAIN_SHARE)
        self.traffic = Traffic("blob store")
        self._connections = threading.BoundedSemaphore(CONNECTIONS_MAX)

    def put(self, key: str, data: Buffer) -> None:
        """See BlobStore. After a transient failure the blob may still arrive later."""
        self.put_all(key, [data])

    def put_all(self, key: str, buffers: Sequence[Buffer]) -> None:
        """See Gathering."""
        self._with_retries(f"blob {key}", _Put(self, check_key(key), buffers).attempt)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See BlobStore."""
        check_key(key)
        if offset < 0 or (length or 0) < 0:
            raise ValueError("offset and length are not negative")
        if length is None:
            return self._with_retries(f"blob {key}", lambda: self.rest(key, offset))
        return self._with_retries(f"blob {key}", lambda: self._range(key, offset, length))

    def stat(self, key: str) -> int | None:
        """See BlobStore."""
        check_key(key)
        return self._with_retries(f"blob {key}", lambda: self.size(key))

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """See BlobStore."""
        listing = _Listing(self, prefix, after)
        while not listing.ended:
            yield from self._with_retries(f"blobs under {prefix!r} in {self._name}", listing.page)

    def delete(self, key: str) -> None:
        """See BlobStore. A key must not be used again if a delete failed: its first attempt may arrive late."""
        check_key(key)
        self._with_retries(f"blob {key}", lambda: self._delete(key))

    def has_versions(self, key: str) -> bool:
        """See Versioning. A blob from before versioning was enabled has none."""
        path = self.path(check_key(key))
        found = self._with_retries(f"blob {key}", lambda: self.request(obstore.head, self.store, path))
        return found.get("version") not in {None, "", "null"}

    def close(self) -> None:
        """See BlobStore. Idle connections close by themselves after a while."""

    def path(self, key: str) -> str:
        """Return the object name of a key."""
        return self._folder + key

    def key(self, path: str) -> str | None:
        """Return the key of an object, None if it is no blob of this store."""
        key = path.removeprefix(self._folder)
        return key if path.startswith(self._folder) and KEY_PATTERN.fullmatch(key) else None

    def request(self, call: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
        """Make one request of the library on one of a limited number of connections. Raises RequestFailure."""
        try:
            with self._connections, self.traffic.request():
                return call(*arguments, **options)
        except (BaseError, OSError, ValueError) as error:
            failure = classify(error)
            if failure.kind in FAILURES:
                self.traffic.failed(FAILURES[failure.kind])
            raise failure from None

    def rest(self, key: str, offset: int = 0) -> bytes:
        """Return all of a blob from `offset` on, in one attempt.

        Raises RequestFailure, DamagedDataError if it ends before. It requests a range, because the answer to that says
        how much there is, even if less arrives.
        """

        def read() -> tuple[int, bytes]:
            found = obstore.get(self.store, self.path(key), options={"range": {"offset": offset}})
            return found.meta["size"] - offset, bytes(found.bytes())

        try:
            length, data = self.request(read)
        except RequestFailure as failure:
            if failure.kind is FailureKind.PERMANENT and self._size_reaching(key, offset, offset) == offset:
                return b""  # an empty range cannot be requested
            raise
        if len(data) != length:
            raise RequestFailure(FailureKind.TRANSIENT, f"an answer had {len(data)} of {length} bytes")
        return data

    def size(self, key: str) -> int | None:
        """Return the size of a blob, None if there is none, in one attempt. Raises RequestFailure."""
        path = self.path(key)
        try:
            return self.request(obstore.head, self.store, path)["size"]
        except RequestFailure as failure:
            if failure.kind not in {FailureKind.ABSENT, FailureKind.UNPROVEN}:
                raise
        try:  # the answer to HEAD has no text: the bucket may be missing instead
            return self.request(lambda: obstore.get(self.store, path).meta["size"])
        except RequestFailure as failure:
            if failure.kind is FailureKind.ABSENT:
                return None
            raise

    def _range(self, key: str, offset: int, length: int) -> bytes:
        if not length:
            self._size_reaching(key, offset, offset)
            return b""
        try:
            found = self.request(obstore.get_range, self.store, self.path(key), start=offset, length=length)
        except RequestFailure as failure:
            if failure.kind is FailureKind.PERMANENT:
                self._size_reaching(key, offset, offset + length)  # the range may exceed the blob
            raise
        data = bytes(found)
        if len(data) != length:
            self._size_reaching(key, offset, offset + length)
            raise RequestFailure(FailureKind.TRANSIENT, f"an answer had {len(data)} of {length} bytes")
        return data

    def _size_reaching(self, key: str, offset: int, end: int) -> int:
        """Return the size of a blob. Raises RequestFailure, DamagedDataError if it ends before `end`."""
        size = self.size(key)
        if size is None:
            raise RequestFailure(FailureKind.ABSENT, "")
        if size < end:
            raise DamagedDataError(f"blob {key} ends at {size}, before the range {offset}..{end}")
        return size

    def _delete(self, key: str) -> None:
        try:
            self.request(obstore.delete, self.store, self.path(key))
        except RequestFailure as failure:  # not all services report that there was nothing to delete
            if failure.kind is FailureKind.ABSENT or (failure.kind is FailureKind.UNPROVEN and self.size(key) is None):
                return
            raise

    def _with_retries(self, what: str, attempt: Callable[[], Answer]) -> Answer:
        """Return the result of the first successful attempt.

        Raises the error of a permanent failure, or of the last attempt.
        """
        for last in self._backoff.tries(what):
            try:
                return attempt()
            except RequestFailure as failure:
                if last or failure.kind is not FailureKind.TRANSIENT:
                    raise failure.error(what) from None
                self.traffic.retried(f"{what}: {failure.message}")
        raise AssertionError("there is always a last try")


class _Put:
    """The attempts to create one blob, and whether one of them may have arrived although its answer was lost."""

    def __init__(self, blobs: CloudBlobs, key: str, buffers: Sequence[Buffer]) -> None:
        self._blobs = blobs
        self._key = key
        self._buffers = buffers
        self._may_have_arrived = False

    def attempt(self) -> None:
        """Make one attempt. Raises RequestFailure."""
        blobs = self._blobs
        path = blobs.path(self._key)
        try:
            # A new iterator for each attempt: the library sends the buffers without copying them.
            blobs.request(obstore.put, blobs.store, path, iter(self._buffers), mode="create", use_multipart=False)
        except RequestFailure as failure:
            if failure.kind is FailureKind.EXISTS:
                self._look()
                return
            self._may_have_arrived = True
            raise

    def _look(self) -> None:
        """Return if the blob under the key is ours. Raises RequestFailure."""
        if not self._may_have_arrived:
            found = self._blobs.size(self._key) is not None
        else:
            try:
                if self._blobs.rest(self._key) == b"".join(self._buffers):
                    return
                found = True
            except RequestFailure as failure:
                if failure.kind is not FailureKind.ABSENT:
                    raise
                found = False
        if found:
            raise RequestFailure(FailureKind.EXISTS, "")
        # Another PUT or a delete was in flight.
        raise RequestFailure(FailureKind.TRANSIENT, "the key was taken, and then it was not")


class _Listing:
    """A listing page by page, which continues after the last key if a page fails."""

    def __init__(self, blobs: CloudBlobs, prefix: str, after: str) -> None:
        self.ended = False
        self._blobs = blobs
        self._prefix = prefix
        self._after = after
        self._last = ""
        self._stream: Iterator[Any] | None = None

    def page(self) -> list[str]:
        """Return the next keys, perhaps none. Raises RequestFailure."""
        blobs = self._blobs
        stream = self._stream or blobs.request(self._begin)
        self._stream = None  # a failed stream is not used again
        page = blobs.request(next, stream, None)
        self._stream = stream
        if page is None:
            self.ended = True
            return []
        return list(self._keys(meta["path"] for meta in page))

    def _begin(self) -> Iterator[Any]:
        """Begin a listing at the nearest folder and name that leave nothing out: the library only takes these."""
        folder = self._blobs.path(self._prefix.rpartition("/")[0])
        begin = KEY_PATTERN.match(max(self._last, self._after, self._prefix[:-1]))
        offset = self._blobs.path(begin[0]) if begin else None
        stream: Iterator[Any] = obstore.list(
            self._blobs.store, prefix=folder or None, offset=offset, chunk_size=KEYS_PER_PAGE
        )
        return stream

    def _keys(self, paths: Iterator[str]) -> Iterator[str]:
        """Yield the keys among the names of one page. Raises RequestFailure if they are not sorted."""
        for path in paths:
            key = self._blobs.key(path)
            if key is None or key == self._last:  # perhaps a folder that was created by hand
                continue
            if key < self._last:
                raise RequestFailure(FailureKind.PERMANENT, "a listing came in no order")
            self._last = key
            if key.startswith(self._prefix) and key > self._after:
                yield key
            elif key > self._prefix and not key.startswith(self._prefix):
                self.ended = True
                return
