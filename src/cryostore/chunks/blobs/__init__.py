"""Blob stores: the interface for named bytes, and the function that opens a store.

Implementations are the modules beside this one. Each passes `tests/conformance/blobstore.py`, and only `open_blobs`
imports them.
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

    A key consists of segments of `[A-Za-z0-9._-]` joined by `/`, none of them `.` or `..`: at most 255 characters a
    segment, and 1,024 in all. Any other key raises ValueError before anything happens. No key may be a folder of
    another (`a` and `a/b`): the caller makes sure of that.

    Every method may raise StorageUnavailableError; StorageFullError means "no space left".
    """

    def put(self, key: str, data: Buffer) -> None:
        """Create the blob: whole or not at all for every observer, and durable when the call returns.

        Raises BlobExistsError, and leaves the old bytes unchanged, if the key is taken. After any other error the blob
        either exists whole or does not exist.
        """

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read `length` bytes from `offset` on, or all of them.

        Raises BlobNotFoundError, or DamagedDataError if the blob ends before the range does: it never returns fewer
        bytes.
        """

    def stat(self, key: str) -> int | None:
        """Return the size in bytes, or None if there is no such blob."""

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix` and sort after `after`, in ascending order of their characters.

        Blobs that are created or deleted during the listing may or may not appear; all others do. A listing that cannot
        be completed raises: it never looks like a short one.
        """

    def delete(self, key: str) -> None:
        """Delete the blob durably; absent is not an error."""

    def close(self) -> None:
        """Release all resources. May be called twice."""


class Appender(Protocol):
    """The end of a growing blob, owned by the process that opened it. `append` calls must not overlap each other."""

    @property
    def size(self) -> int:
        """Bytes appended so far."""

    def append(self, buffers: Sequence[Buffer]) -> int:
        """Write the buffers at the end; return the offset of the first one.

        They are readable at once, but not durable yet. All or nothing. StorageFullError leaves the blob unchanged, and
        the caller may try again. After any other error the appender must not be used again.
        """

    def sync(self) -> None:
        """Make every byte appended before this call durable, and the name of the blob. May overlap `append`.

        After an error it is unknown which bytes are durable, and a second attempt would not tell: the appender must not
        be used again.
        """

    def close(self) -> None:
        """Give up ownership, without a flush. May be called twice."""


@runtime_checkable
class Appendable(BlobStore, Protocol):
    """A BlobStore in which blobs can grow."""

    def open_append(self, key: str) -> Appender:
        """Create an empty blob, and own it until the appender is closed or this process ends.

        Raises BlobExistsError if the key is taken: a blob has one owner, and never grows after that owner is gone.
        """

    def owned(self, key: str) -> bool:
        """Whether the blob's owner is alive. Once this is False for a blob that is not empty, it stays False.

        Raises BlobNotFoundError.
        """

    def cut(self, key: str, size: int) -> bool:
        """Durably truncate a blob without an owner to `size` bytes; a smaller blob stays as it is.

        Makes all of its bytes durable, even if its owner died before a flush. Later reads come from the disk and not
        from memory, as far as the system allows. Return False, and do nothing, if the owner is alive. Raises
        BlobNotFoundError.
        """


@runtime_checkable
class Gathering(BlobStore, Protocol):
    """A BlobStore that writes several buffers as one blob without joining them in memory first."""

    def put_all(self, key: str, buffers: Sequence[Buffer]) -> None:
        """As `put`, for buffers one behind the other."""


@runtime_checkable
class Caching(Protocol):
    """A BlobStore that keeps blobs open between reads."""

    def forget_deleted(self) -> None:
        """Close blobs that another process has deleted: only then is their room free. Harmless at any time."""


@runtime_checkable
class Versioning(Protocol):
    """A BlobStore whose service may keep deleted blobs as old versions."""

    def has_versions(self, key: str) -> bool:
        """Whether the service gave this blob a version when it was put. Raises StorageUnavailableError."""


def open_blobs(place: str | Path) -> BlobStore:
    """Open a blob store: a directory (path or `file://` URL, created if missing), a cloud URL, or `memory:`.

    For a cloud (`s3://`, `gs://`, `az://`) the first request is made at the first use; see `cloud_url`. Raises
    ConfigurationError for a URL with another scheme, or with impossible or unsafe options.
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
    # Imported here, so that only stores in a cloud pay for loading the library
    from cryostore.chunks.blobs.cloud import CloudBlobs  # noqa: PLC0415
    from cryostore.chunks.blobs.cloud_url import CloudUrl  # noqa: PLC0415

    return CloudBlobs(CloudUrl.parse(url))
