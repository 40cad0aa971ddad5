"""Fence of a shared store's blobs: a process with a superseded catalog can neither delete nor acknowledge anything.

Another catalog takes over by putting the next marker (`chunks.marker`), and reads the records afterwards. So it sees
every record that was put before that marker; a record that was put later must not be acknowledged. Therefore the fence
looks for the marker after every record that it puts, and before every delete. Packs that are put without a look harm no
other catalog.
"""

from __future__ import annotations

from collections.abc import Iterator

from cryostore.chunks.blobs import Appendable, Appender, BlobStore, Caching, Gathering
from cryostore.chunks.marker import is_superseded
from cryostore.chunks.records import PREFIX as RECORDS_PREFIX
from cryostore.core.digest import Buffer
from cryostore.core.errors import StorageUnavailableError


def fence_blobs(blobs: BlobStore, number: int) -> BlobStore:
    """Wrap blobs in a fence for the marker with this number; the wrapper supports all that the blobs support."""
    if isinstance(blobs, Appendable):
        return FencedAppendable(blobs, number)
    if isinstance(blobs, Gathering):
        return FencedGathering(blobs, number)
    return FencedBlobs(blobs, number)


class FencedBlobs:
    """A BlobStore that refuses to delete, and to acknowledge records, once a newer marker exists.

    Closes the blob store that it wraps.
    """

    def __init__(self, inner: BlobStore, number: int) -> None:
        self._inner = inner
        self._number = number

    def put(self, key: str, data: Buffer) -> None:
        """See BlobStore."""
        self._inner.put(key, data)
        if key.startswith(RECORDS_PREFIX):
            self._require_current()

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See BlobStore."""
        return self._inner.get(key, offset, length)

    def stat(self, key: str) -> int | None:
        """See BlobStore."""
        return self._inner.stat(key)

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """See BlobStore."""
        return self._inner.list(prefix, after)

    def delete(self, key: str) -> None:
        """See BlobStore."""
        self._require_current()
        self._inner.delete(key)

    def close(self) -> None:
        """See BlobStore."""
        self._inner.close()

    def forget_deleted(self) -> None:
        """See Caching."""
        if isinstance(self._inner, Caching):
            self._inner.forget_deleted()

    def _require_current(self) -> None:
        if is_superseded(self._inner, self._number):
            raise StorageUnavailableError(
                "another catalog has taken over this store's blobs",
                hint="start the server on the catalog that was rebuilt or moved last",
            )


class FencedGathering(FencedBlobs):
    """A fence for a Gathering blob store."""

    def __init__(self, inner: Gathering, number: int) -> None:
        super().__init__(inner, number)
        self.put_all = inner.put_all  # puts packs only


class FencedAppendable(FencedBlobs):
    """A fence for an Appendable blob store."""

    def __init__(self, inner: Appendable, number: int) -> None:
        super().__init__(inner, number)
        self._appendable = inner

    def open_append(self, key: str) -> Appender:
        """See Appendable."""
        return self._appendable.open_append(key)

    def owned(self, key: str) -> bool:
        """See Appendable."""
        return self._appendable.owned(key)

    def cut(self, key: str, size: int) -> bool:
        """See Appendable."""
        return self._appendable.cut(key, size)
