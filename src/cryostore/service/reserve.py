"""Use of the disk reserve: on a full disk, deletes and garbage collection still work, and new data is refused.

A database and a blob store with the reserve behind them: a write within `DiskReserve.spending` that finds the disk full
is repeated in the space of the reserve, each transaction and each blob by itself, so that nothing happens twice. The
reserve itself is in `chunks.disk_reserve`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from cryostore.catalog.database import Answer, Database, Transaction
from cryostore.chunks.blobs import Appendable, Appender, BlobStore, Caching
from cryostore.chunks.disk_reserve import DiskReserve
from cryostore.core.digest import Buffer
from cryostore.core.errors import ConfigurationError
from cryostore.model.chunks import LinkChunks, PutChunk
from cryostore.model.jobs import CommitBackupJob, StartBackupJob
from cryostore.model.objects import NotifyObjectComplete, PutObject, StartObject
from cryostore.model.operation import Operation
from cryostore.model.vaults import CreateBackupVault

BRINGING = frozenset(
    {CreateBackupVault, StartBackupJob, StartObject, PutChunk, LinkChunks, PutObject, NotifyObjectComplete}
)
"""The operations that bring new data. The others free space, restore or read; they write a few rows at most."""


def brings_data(operation: Operation[Any]) -> bool:
    """Whether an operation brings new data, so that it is refused while the reserve is in use."""
    if isinstance(operation, CommitBackupJob):
        return operation.outcome != "FAILED"
    return type(operation) in BRINGING


class ReservedDatabase:
    """A Database with the reserve behind its writes. Closes the database that it wraps."""

    def __init__(self, inner: Database, reserve: DiskReserve) -> None:
        self._inner = inner
        self._reserve = reserve
        self.read = inner.read

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """See Database. Outside of `DiskReserve.spending`, raises StorageFullError while the reserve is in use."""
        return self._reserve.spend(partial(self._inner.write, work))

    def migrate(self) -> None:
        """See Database."""
        self._reserve.spend(self._inner.migrate)

    def close(self) -> None:
        """See Database."""
        self._inner.close()


class ReservedBlobs:
    """An Appendable BlobStore with the reserve behind the creation of blobs. Closes the blob store that it wraps.

    Appends do not use the reserve, since the bytes of many callers share one blob.
    """

    def __init__(self, inner: BlobStore, reserve: DiskReserve) -> None:
        if not isinstance(inner, Appendable):
            raise ConfigurationError("chunks cannot be kept in a blob store that does not append")
        self._inner: Appendable = inner
        self._reserve = reserve

    def put(self, key: str, data: Buffer) -> None:
        """See BlobStore. Outside of `DiskReserve.spending`, raises StorageFullError while the reserve is in use."""
        self._reserve.spend(partial(self._inner.put, key, data))

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
        self._inner.delete(key)

    def close(self) -> None:
        """See BlobStore."""
        self._inner.close()

    def forget_deleted(self) -> None:
        """See Caching."""
        if isinstance(self._inner, Caching):
            self._inner.forget_deleted()

    def open_append(self, key: str) -> Appender:
        """See Appendable."""
        return self._inner.open_append(key)

    def owned(self, key: str) -> bool:
        """See Appendable."""
        return self._inner.owned(key)

    def cut(self, key: str, size: int) -> bool:
        """See Appendable."""
        return self._inner.cut(key, size)
