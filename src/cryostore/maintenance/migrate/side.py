"""One of the two stores of a migration: its catalog, its blobs, and its name in what goes wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cryostore.catalog.database import Answer, Database, Transaction
from cryostore.chunks.blobs import BlobStore
from cryostore.core.digest import Buffer
from cryostore.core.errors import StorageFullError, StorageUnavailableError

REPEAT = "repeat the command when that is put right: it goes on where it stopped"


class Step(NamedTuple):
    """How far a stage is, in things, and in bytes where these count. `total` is None where nobody knows it."""

    stage: str
    done: int
    total: int | None = None
    bytes_done: int = 0


@dataclass(frozen=True)
class Side:
    """A store, opened for nobody else. `name` says for people where it is, and is in the words of what it raises.

    `shared_blobs` says where the blobs of a shared store are, for people, too; None for one in a directory.
    """

    name: str
    database: Database
    blobs: BlobStore
    shared_blobs: str | None = None
    require_alone: Callable[[], None] = lambda: None
    """Raises ConfigurationError if it can be seen that somebody else uses the store."""

    def read(self, work: Callable[[Transaction], Answer]) -> Answer:
        """See Database."""
        with self.named():
            return self.database.read(work)

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """See Database."""
        with self.named():
            return self.database.write(work)

    def migrate(self) -> None:
        """See Database: whoever opened it has done so."""

    def close(self) -> None:
        """See Database: it is closed by whoever opened it."""

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
        """Whether a listing shows a blob whose key begins so."""
        with self.named():
            return next(iter(self.blobs.list(prefix)), None) is not None

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Say in the words of StorageUnavailableError which of the two stores it is about."""
        try:
            yield
        except StorageUnavailableError as error:
            kind = StorageFullError if isinstance(error, StorageFullError) else StorageUnavailableError
            raise kind(f"{self.name}: {error.message}", hint=error.hint or REPEAT) from error
