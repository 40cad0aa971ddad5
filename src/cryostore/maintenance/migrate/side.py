"""One side of a migration, the source or the target: its catalog, its blob store, and its name in errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cryostore.catalog.database import Answer, Database, Transaction
from cryostore.chunks.blobs import BlobStore
from cryostore.core.digest import Buffer
from cryostore.core.errors import StorageFullError, StorageUnavailableError

REPEAT = "fix the cause and repeat the command: it continues where it stopped"


class StageProgress(NamedTuple):
    """How far a stage has come: a count, and bytes if they matter. `total` is None if it is not known."""

    stage: str
    done: int
    total: int | None = None
    bytes_done: int = 0


@dataclass(frozen=True)
class Side:
    """A store that is opened exclusively. Every error it raises begins with `name`, its place as shown to people.

    `shared_blobs` is the place of the blob store of a shared store, as shown to people; None for a directory.
    """

    name: str
    database: Database
    blobs: BlobStore
    shared_blobs: str | None = None
    require_alone: Callable[[], None] = lambda: None
    """Raises ConfigurationError if another program is seen to use the store."""

    def read(self, work: Callable[[Transaction], Answer]) -> Answer:
        """See Database."""
        with self.named():
            return self.database.read(work)

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """See Database."""
        with self.named():
            return self.database.write(work)

    def migrate(self) -> None:
        """See Database. Does nothing: the catalog was migrated when it was opened."""

    def close(self) -> None:
        """See Database. Does nothing: the opener closes it."""

    def put(self, key: str, data: Buffer) -> None:
        """See BlobStore."""
        with self.named():
            self.blobs.put(key, data)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See BlobStore."""
        with self.named():
            return self.blobs.get(key, offset, length)

    def stat(self, key: str) -> int | None:
        """See BlobStore."""
        with self.named():
            return self.blobs.stat(key)

    def delete(self, key: str) -> None:
        """See BlobStore."""
        with self.named():
            self.blobs.delete(key)

    def has_any(self, prefix: str) -> bool:
        """Whether a listing shows a blob whose key has this prefix."""
        with self.named():
            return next(iter(self.blobs.list(prefix)), None) is not None

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Add the name of this side to every StorageUnavailableError."""
        try:
            yield
        except StorageUnavailableError as error:
            kind = StorageFullError if isinstance(error, StorageFullError) else StorageUnavailableError
            raise kind(f"{self.name}: {error.message}", hint=error.hint or REPEAT) from error
