"""Interface between Cryostore and the database that holds its catalog.

In this module: what a database must do. Not here: engines (`sqlite`, `postgres`) and statements (one file per noun).

A unit of work is a function of a transaction. The database decides when it runs, may run it several times until it
commits, and returns the result of the run that was committed. So the function contains nothing but statements, and
never waits for anything outside the database.

Statements are written once for all engines: named parameters (`:name`), `INSERT ... ON CONFLICT`, `RETURNING`. Values
are integers, text, bytes or None; booleans are 1 or 0.

All transactions are serializable, those that only read included. So a caller may draw conclusions from two
transactions that ran one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

Answer = TypeVar("Answer")
Row = tuple[Any, ...]

GENERATION_MAX = 2**63 - 1
"""`to_generation` of an object version that nothing has replaced or removed."""


class Statement(NamedTuple):
    """A statement with its values, to run in one message with others.

    It adds or changes one row and has no RETURNING.
    """

    text: str
    values: Mapping[str, Any]
    may_change_none: bool = False
    """Whether changing no row is a normal result, too."""


class Transaction(Protocol):
    """Statements that a unit of work may run. Valid only during that unit of work."""

    def run(self, statement: str, **values: Any) -> int:
        """Run a statement; return the number of rows that it changed."""

    def run_all(self, statements: Sequence[Statement]) -> list[int]:
        """Run statements in order, whatever each of them changes; return the number of changed rows of each.

        For statements that do not need each other's results: together they cost one round trip.
        """

    def row(self, statement: str, **values: Any) -> Row | None:
        """Run a statement; return its first row, or None."""

    def rows(self, statement: str, **values: Any) -> list[Row]:
        """Run a statement; return all of its rows."""

    def pass_number(self, table: str, column: str, number: int) -> None:
        """Make an identity column continue above `number`.

        For callers that inserted a row with an explicit number, so that the database never gives it out again.
        """

    def problems(self, limit: int) -> list[str]:
        """Check the database itself: pages, indexes, and rows that refer to missing rows.

        Return about `limit` problems at most, one sentence each. Reads the whole database. Raises DamagedDataError if
        the database cannot be read.
        """


class UnexpectedRowCountError(Exception):
    """A statement of a FixedStatements changed an unexpected number of rows.

    The caller then runs its work step by step.
    """


class FixedStatements:
    """A unit of work that is a fixed list of statements, each of which normally changes exactly one row.

    An engine may send the whole transaction in one message. Raises UnexpectedRowCountError if a statement changes a
    different number of rows; then nothing has happened.
    """

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements

    def __call__(self, transaction: Transaction) -> None:
        """Run the statements, as any other unit of work."""
        counts = transaction.run_all(self.statements)
        for statement, count in zip(self.statements, counts, strict=True):
            if count != 1 and not (count == 0 and statement.may_change_none):
                raise UnexpectedRowCountError


class Database(Protocol):
    """A transactional database.

    Raises `StorageFullError` or `StorageUnavailableError` if it cannot work now; then nothing of the unit of work has
    happened. If the connection breaks during a commit, the engine finds out whether it happened before it returns.
    """

    def read(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Run `work` on one snapshot of all committed data. `work` must not write."""

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Run `work` in a transaction of its own, durable when this returns.

        If `work` raises, nothing of it remains, and the exception reaches the caller. Work of several callers may share
        one commit.
        """

    def migrate(self) -> None:
        """Migrate the schema to the newest version, atomically. May be repeated.

        Raises ConfigurationError on a newer schema.
        """

    def close(self) -> None:
        """Finish the work in progress and release all resources."""
