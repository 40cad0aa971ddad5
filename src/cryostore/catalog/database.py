"""The seam between Cryostore and the database that holds its catalog.

Lives here: what a database must do. Does not live here: any engine (`sqlite`), any statement (one file per noun).

A unit of work is a function of a transaction. The database decides when it runs, may run it several times until it
commits, and answers what it answered the time it committed; so the function does nothing but statements. No unit of
work waits for anything outside the database.

Statements are written once for all engines: named parameters (`:name`), `INSERT ... ON CONFLICT`, `RETURNING`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

Answer = TypeVar("Answer")
Row = tuple[Any, ...]

GENERATION_MAX = 2**63 - 1
"""The end of an object version that nothing has replaced or removed."""


class Transaction(Protocol):
    """The statements a unit of work may run. Valid only inside that unit of work."""

    def run(self, statement: str, **values: Any) -> int:
        """Run a statement and answer how many rows it changed."""

    def row(self, statement: str, **values: Any) -> Row | None:
        """Run a statement and answer its first row, or None."""

    def rows(self, statement: str, **values: Any) -> list[Row]:
        """Run a statement and answer all of its rows."""


class Database(Protocol):
    """A transactional database.

    Raises `StorageFullError` or `StorageUnavailableError` when it cannot work now; then nothing of the unit of work
    has happened, or, where the connection broke during a commit, the engine finds out before it answers.
    """

    def read(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Run `work` on one snapshot of all committed data. Reads only."""

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Run `work` in a transaction of its own, durable when this returns.

        If `work` raises, nothing it did remains and the exception goes on to the caller. Work of several callers may
        share one commit.
        """

    def migrate(self) -> None:
        """Bring the schema up to date, atomically; raises ConfigurationError on a newer schema. May be repeated."""

    def close(self) -> None:
        """Finish the work in hand and let go of everything."""
