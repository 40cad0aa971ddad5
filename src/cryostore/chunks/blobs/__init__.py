"""The BlobStore seam: where named bytes live. Every implementation passes `tests/conformance/blobstore.py`.

Lives here: the contract and the factory. Implementations live beside it and are imported only by `open_blobs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from cryostore.chunks.blobs.local import LocalBlobs
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.core.digest import Buffer
from cryostore.core.errors import ConfigurationError

__all__ = ["Appendable", "Appender", "BlobStore", "Caching", "Gathering", "open_blobs"]

CLOUD_SCHEMES = frozenset({"s3", "gs", "az"})


class BlobStore(Protocol):
    """Blobs under keys. Written once, read often, safe to call from many threads and processes.

    A key is segments of `[A-Za-z0-9._-]` joined by `/`, none of them `.` or `..`, at most 255 characters a segment
    and 1,024 in all; any other key is a ValueError, before anything is touched. No key may be a folder of another (`a`
    and `a/b`): whoever names blobs sees to that.

    Every method may raise StorageUnavailableError; StorageFullError is the one for "no space left".
    """

    def put(self, key: str, data: Buffer) -> None:
        """Create the blob. Whole or not at all for every observer, and durable when the call returns.

        Raises BlobExistsError, and leaves the old bytes alone, if the key is taken. After any other error the blob
        either exists whole or does not exist.
        """

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read `length` bytes from `offset`, or all from there on.

        Raises BlobNotFoundError, or DamagedDataError if the blob ends before the range does: never fewer bytes.
        """

    def stat(self, key: str) -> int | None:
        """Size in bytes, or None if there is no such blob."""

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Keys that start with `prefix` and sort behind `after`, in ascending order of their characters.

        Blobs that come or go while the listing runs may or may not appear; all others do. A listing that cannot be
        completed raises: it never looks like a short one.
        """

    def delete(self, key: str) -> None:
        """Remove the blob, durably; absent is not an error."""

    def close(self) -> None:
        """Release what the store holds; may be called twice."""


class Appender(Protocol):
    """The end of one growing blob, owned by whoever opened it. `append` calls must not overlap each other."""

    @property
    def size(self) -> int:
        """Bytes appended so far."""

    def append(self, buffers: Sequence[Buffer]) -> int:
        """Write the buffers at the end and return the offset of the first. Readable at once, not yet durable.

        All or nothing. StorageFullError leaves the blob as it was, to be tried again; after any other error the
        appender must not be used again.
        """

    def sync(self) -> None:
        """Make every byte appended before this call durable, the blob's name included. May overlap `append`.

        After an error nobody knows which bytes are safe, and a second try would not tell: the appender must not be
        used again.
        """

    def close(self) -> None:
        """Give up ownership; may be called twice. Does not sync."""


@runtime_checkable
class Appendable(BlobStore, Protocol):
    """A BlobStore in which blobs can grow."""

    def open_append(self, key: str) -> Appender:
        """Create an empty blob and own it until the appender is closed or this process ends.

        Raises BlobExistsError if the key is taken: a blob grows under one owner only, and never again after it.
        """

    def owned(self, key: str) -> bool:
        """Whether the blob's owner lives. Once False for a blob that is not empty, False for ever.

        Raises BlobNotFoundError.
        """

    def cut(self, key: str, size: int) -> bool:
        """Durably cut a blob nobody owns down to `size` bytes (a smaller blob stays as it is).

        All of its bytes are durable then, whatever became of its owner; later reads do not come from what only memory
        holds, as far as the system lets us say so. False, and nothing is done, if its owner lives. Raises
        BlobNotFoundError.
        """


@runtime_checkable
class Gathering(BlobStore, Protocol):
    """A BlobStore that makes one blob of several buffers without copying them together first."""

    def put_all(self, key: str, buffers: Sequence[Buffer]) -> None:
        """As `put`, for the buffers one behind the other."""


@runtime_checkable
class Caching(Protocol):
    """A BlobStore that keeps blobs open between reads."""

    def forget_deleted(self) -> None:
        """Let go of blobs that another process has deleted: only then is their room given back. Does no harm."""


@runtime_checkable
class Versioning(Protocol):
    """A BlobStore whose service may keep what was deleted."""

    def has_versions(self, key: str) -> bool:
        """Whether the service gave this blob a version when it was put. Raises StorageUnavailableError."""


def open_blobs(place: str | Path) -> BlobStore:
    """Open the store at `place`: a directory, as path or `file://` URL (made if missing), a cloud's URL, or `memory:`.

    Of a cloud, `s3://`, `gs://` or `az://`, nothing is touched before it is used (`cloud_place`). Raises
    ConfigurationError for a URL of any other scheme, or one that says something impossible or unsafe.
    """
    scheme, colon, rest = str(place).partition(":")
    if isinstance(place, str) and colon and "/" not in scheme:
        if place == "memory:":
            return MemoryBlobs()
        if scheme in CLOUD_SCHEMES and rest.startswith("//"):
            return _open_cloud(place)
        if scheme != "file" or not rest.startswith("///"):
            raise ConfigurationError(
                f"blobs cannot be kept at {place!r}", hint="Give a directory, a file:///, s3://, gs:// or az:// URL"
            )
        place = rest[2:]
    return LocalBlobs(Path(place))


def _open_cloud(url: str) -> BlobStore:
    # Here alone, so that only who keeps blobs there pays for loading the library
    from cryostore.chunks.blobs.cloud import CloudBlobs  # noqa: PLC0415
    from cryostore.chunks.blobs.cloud_url import CloudUrl  # noqa: PLC0415

    return CloudBlobs(CloudUrl.parse(url))
