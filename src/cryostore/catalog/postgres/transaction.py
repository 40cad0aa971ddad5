"""Transactions on a PostgreSQL session: step by step, as a single statement, and in one round trip.

One round trip is for batches whose statements are all known beforehand: BEGIN, all statements and COMMIT are one
message. The server itself makes sure that nothing unexpected is committed: a statement that does not change exactly one
row fails, and the server skips what follows it, COMMIT included. To find out which statement it was, the engine runs
the batch again, step by step.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from cryostore.catalog.database import FixedStatements, Row, Statement, Transaction
from cryostore.catalog.group_commit import Pending
from cryostore.catalog.postgres.failure import Reason, reason, translate
from cryostore.catalog.postgres.session import Session, translated

WRONG_PAGES = (
    "SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database() AND checksum_failures > 0"
)
FOREIGN_KEYS = (
    "SELECT conrelid::regclass::text, own.attname::text, confrelid::regclass::text, other.attname::text"
    " FROM pg_constraint JOIN pg_attribute AS own ON own.attrelid = conrelid AND own.attnum = conkey[1]"
    " JOIN pg_attribute AS other ON other.attrelid = confrelid AND other.attnum = confkey[1]"
    " WHERE contype = 'f' AND connamespace = current_schema()::regnamespace ORDER BY conname"
)


class PostgresTransaction:
    """Statements on one session; see `Transaction`."""

    __slots__ = ("_cursor", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self._cursor = session.cursor(binary=True)

    def run(self, statement: str, **values: Any) -> int:
        return self._execute(statement, values).rowcount

    def run_all(self, statements: Sequence[Statement]) -> list[int]:
        with self.session.pipeline():
            cursors = [self.session.cursor(binary=True) for _ in statements]
            for cursor, statement in zip(cursors, statements, strict=True):
                cursor.execute(translated(statement.text), statement.values)
        return [cursor.rowcount for cursor in cursors]

    def row(self, statement: str, **values: Any) -> Row | None:
        return self._execute(statement, values).fetchone()

    def rows(self, statement: str, **values: Any) -> list[Row]:
        return self._execute(statement, values).fetchall()

    def _execute(self, statement: str, values: Mapping[str, Any]) -> psycopg.Cursor[Row]:
        return self._cursor.execute(translated(statement), values)

    def pass_number(self, table: str, column: str, number: int) -> None:
        self.row(
            "SELECT setval(pg_get_serial_sequence(:table, :column), :number) WHERE :number >"
            " coalesce(pg_sequence_last_value(CAST(pg_get_serial_sequence(:table, :column) AS regclass)), 0)",
            table=table,
            column=column,
            number=number,
        )

    def problems(self, limit: int) -> list[str]:
        found = [f"PostgreSQL has met {row[0]} pages whose checksums are wrong" for row in self.rows(WRONG_PAGES)]
        for table, column, other, other_column in self.rows(FOREIGN_KEYS):
            alone = self.row(
                f"SELECT count(*) FROM {table} AS row WHERE {column} IS NOT NULL"
                f" AND NOT EXISTS (SELECT 1 FROM {other} AS other WHERE other.{other_column} = row.{column})"
            )
            if alone and alone[0]:
                found.append(f"{alone[0]} rows of {table} refer to rows of {other} that are not there")
        return found[:limit]


class MoreStatementsError(Exception):
    """A unit of work needs a second statement, and with it a transaction of its own."""


class OneStatement(PostgresTransaction):
    """A single statement, which is a transaction by itself. Raises MoreStatementsError at the second one."""

    __slots__ = ("_is_used",)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._is_used = False

    def _execute(self, statement: str, values: Mapping[str, Any]) -> psycopg.Cursor[Row]:
        if self._is_used:
            raise MoreStatementsError
        self._is_used = True
        return super()._execute(statement, values)

    def run_all(self, _statements: Sequence[Statement]) -> list[int]:
        raise MoreStatementsError

    def problems(self, _limit: int) -> list[str]:
        raise MoreStatementsError


class PostgresWritingSession:
    """The writing session during one attempt at a batch; see `WritingSession`."""

    def __init__(self, session: Session, begin: str, *, in_turn: bool) -> None:
        self._session = session
        self._begin = begin
        self._in_turn = in_turn
        self._transaction = PostgresTransaction(session)

    def begin(self) -> Transaction:
        self._session.say(self._begin)
        return self._transaction

    def say(self, command: str) -> None:
        if command.startswith("ROLLBACK"):
            self._session.take_back(command)
        else:
            self._session.say(command)

    def stands(self, error: BaseException) -> bool:
        if not isinstance(error, psycopg.Error):
            return True
        why = reason(error, writing=True)
        # A violated constraint may come from a transaction that committed first: had this unit of work seen it, it
        # would not have violated it. While no other process writes, the violation is its own.
        return why is Reason.OWN or (why is Reason.RULE and self._in_turn)

    def translate(self, error: BaseException) -> BaseException:
        return translate(error) if isinstance(error, psycopg.Error) else error


def statements_of(batch: Sequence[Pending]) -> list[Statement] | None:
    """Return the statements of all units of work in order; None if one of them is not known beforehand."""
    units = [pending.work for pending in batch if isinstance(pending.work, FixedStatements)]
    return [statement for unit in units for statement in unit.statements] if len(units) == len(batch) else None


def commit_at_once(session: Session, begin: str, statements: Sequence[Statement]) -> None:
    """Begin, run all statements, and commit. `begin` are commands, separated by `; `.

    Raises psycopg.Error; that is DivisionByZero if a statement did not change exactly one row. Then nothing has
    happened, unless the connection was lost: then the engine must look up whether the commit happened.
    """
    with session.pipeline():
        for command in begin.split("; "):
            session.say(command)
        for statement in statements:
            text = statement.text if statement.may_change_none else _guarded(statement.text)
            session.cursor(binary=True).execute(translated(text), statement.values)
        session.say("COMMIT")


@functools.lru_cache(maxsize=100)
def _guarded(text: str) -> str:
    """Return a statement that fails unless it changes exactly one row."""
    return f"WITH changed AS ({text} RETURNING 1) SELECT 1 / CAST(count(*) = 1 AS INTEGER) FROM changed"
