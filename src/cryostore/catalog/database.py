"""The seam between Cryostore and the database that holds its catalog.

Lives here: what a database must do. Does not live here: any engine (`sqlite`, `postgres`), any statement (one file per
noun).

A unit of work is a function of a transaction. The database decides when it runs, may run it several times until it
commits, and answers what it answered the time it committed; so the function does nothing but statements. No unit of
work waits for anything outside the database.

Statements are written once for all engines: named parameters (`:name`), `INSERT ... ON CONFLICT`, `RETURNING`. Values
are whole numbers, text, bytes or None; what is true or false is 1 or 0.

All transactions of a database, those that only read among them, happen as if one after the other (they are
serializable): whoever reads in one transaction, and then in another, may conclude from both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

Answer = TypeVar("Answer")
Row = tuple[Any, ...]

GENERATION_MAX = 2**63 - 1
"""The end of an object version that nothing has replaced or removed."""


class Statement(NamedTuple):
    """A statement and its values, to be run with others at once. It adds or changes a row, with no RETURNING."""

    text: str
    values: Mapping[str, Any]
    may_change_none: bool = False
    """Whether it is in order if no row is changed."""


class Transaction(Protocol):
    """The statements a unit of work may run. Valid only inside that unit of work."""

    def run(self, statement: str, **values: Any) -> int:
        """Run a statement and answer how many rows it changed."""

    def run_all(self, statements: Sequence[Statement]) -> list[int]:
        """Run statements in their order, whatever each of them finds; answers how many rows each changed.

        For statements that need no answer of each other: together they cost one round trip.
        """

    def row(self, statement: str, **values: Any) -> Row | None:
        """Run a statement and answer its first row, or None."""

    def rows(self, statement: str, **values: Any) -> list[Row]:
        """Run a statement and answer all of its rows."""

    def pass_number(self, table: str, column: str, number: int) -> None:
        """Count on from `number` at the least in a column that the database counts up by itself.

        For whoever has put in a row with a number of its own: that one is never given out again.
        """

    def problems(self, limit: int) -> list[str]:
        """At most about `limit` things that are wrong with the database itself; reads all of it.

        Raises DamagedDataError if it cannot even be read.
        """


class UnexpectedRowCountError(Exception):
    """A statement changed no row that was to change one. Whoever wrote the statements goes step by step then."""


class FixedStatements:
    """A unit of work that is a fixed list of statements, each of which normally changes exactly one row.

    An engine may send the whole transaction in one message. Raises UnexpectedRowCountError if a statement changes a
    different number of rows; then nothing has happened.
    """

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements

    def __call__(self, transaction: Transaction) -> None:
        """Run them, as any unit of work."""
        counts = transaction.run_all(self.statements)
        for statement, count in zip(self.statements, counts, strict=True):
            if count != 1 and not (count == 0 and statement.may_change_none):
                raise UnexpectedRowCountError


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
