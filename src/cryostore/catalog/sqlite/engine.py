"""SQLite engine of the catalog: one file, shared by any number of processes on one machine.

Writes of one process share commits (`group_commit`), so that a durable write costs a share of an fsync. Between
processes an flock taken before BEGIN IMMEDIATE keeps turns fair, where SQLite's own busy handler would sleep. Reads
take connections from a pool and never wait for writers (WAL mode).

What happens when the disk is full or fails: `full_disk`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cryostore.catalog.database import Answer, Row, Statement, Transaction
from cryostore.catalog.group_commit import GroupCommit, Pending, run_batch
from cryostore.catalog.migration import migrate_to_newest
from cryostore.catalog.sqlite.full_disk import WriteAheadLog, translate, translate_system_error
from cryostore.core.errors import StorageFullError

BUSY_WAIT_MS = 60_000
DIALECT = {
    r"\{id\}": "INTEGER PRIMARY KEY AUTOINCREMENT",
    r"\{blob\}": "BLOB",
    r"\{clustered\}": "WITHOUT ROWID",
    r"\{, \w+\}": "",
    r"\{- (\w+)\}": r", \1",
    r"\{small\}": "BIGINT",
    r"\{selective [\w.]+\}": "",
}
SETTINGS = ("synchronous = FULL", "foreign_keys = ON", "cache_size = -4096", "wal_autocheckpoint = 4000")
HAS_SCHEMA = "SELECT 1 FROM sqlite_master WHERE name = 'schema_version'"


class SqliteTransaction:
    """Statements on one connection; see `Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, **values: Any) -> int:
        return self._connection.execute(statement, values).rowcount

    def run_all(self, statements: Sequence[Statement]) -> list[int]:
        return [self.run(statement.text, **statement.values) for statement in statements]

    def row(self, statement: str, **values: Any) -> Row | None:
        # All rows are fetched, so that no statement stays open past the transaction.
        found = self._connection.execute(statement, values).fetchall()
        return found[0] if found else None

    def rows(self, statement: str, **values: Any) -> list[Row]:
        return self._connection.execute(statement, values).fetchall()

    def pass_number(self, table: str, column: str, number: int) -> None:
        """Do nothing: SQLite continues above the highest number that a table ever had."""

    def problems(self, limit: int) -> list[str]:
        found = [row[0] for row in self.rows(f"PRAGMA integrity_check({limit})")]
        broken = self.rows("PRAGMA foreign_key_check")
        return [problem for problem in found if problem != "ok"] + [
            f"a row of {row[0]} refers to a row of {row[2]} that is not there" for row in broken[:limit]
        ]


class SqliteDatabase:
    """A `Database` in the file at `path`, which is created with mode 0600 if absent.

    While it is open, the process must not open and close the file by other means: closing any descriptor of a file
    releases all POSIX locks that the process has on it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._log = WriteAheadLog(path, busy_wait_ms=BUSY_WAIT_MS)
        with self._translated():
            lock_path = path.with_suffix(".lock")
            self._lock_descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._writing = self._open()
            except BaseException:
                os.close(self._lock_descriptor)
                raise
        self._group = GroupCommit(self._write_batch)

    def read(self, work: Callable[[Transaction], Answer]) -> Answer:
        try:
            connection = self._borrow()
            try:
                connection.execute("BEGIN")
                return work(SqliteTransaction(connection))
            finally:
                self._give_back(connection)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        return self._group.write(work)

    def has_schema(self) -> bool:
        """Whether the file holds a catalog."""
        return self.read(lambda transaction: transaction.row(HAS_SCHEMA)) is not None

    def migrate(self) -> None:
        self.write(partial(migrate_to_newest, dialect=DIALECT))

    def close(self) -> None:
        if self._group.close():
            for connection in (*self._idle, self._writing):
                connection.close()
            os.close(self._lock_descriptor)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate the errors of the block for callers of `Database`."""
        try:
            yield
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        except OSError as error:
            raise translate_system_error(error, self._path) from error

    def _open(self) -> sqlite3.Connection:
        """Return the writing connection; creates the file."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with self._turn():
            return self._connect("journal_mode = WAL")

    def _connect(self, purpose: str) -> sqlite3.Connection:
        """Return a connection with the usual settings, and one more for its purpose."""
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY_WAIT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            for setting in (*SETTINGS, purpose):
                connection.execute(f"PRAGMA {setting}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _borrow(self) -> sqlite3.Connection:
        """Return a connection to read with, for one thread at a time."""
        with self._group.closing:
            self._group.check_open()
            if self._idle:
                return self._idle.pop()
        return self._connect("query_only = ON")

    def _give_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            connection.close()
            return
        with self._group.closing:
            if not self._group.closed:
                self._idle.append(connection)
                return
        connection.close()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_descriptor, fcntl.LOCK_UN)

    def _write_batch(self, batch: list[Pending]) -> None:
        """Run and commit the batch as one transaction; on a full disk once more, if the log gives room back.

        The log is shrunk before the next batch after a failure: otherwise the log would take whatever room was freed,
        and the file could never grow into it.
        """
        if self._log.is_in_the_way:
            self._shrink_log()
        error = self._try_batch(batch)
        if isinstance(error, StorageFullError) and self._shrink_log():
            for pending in batch:
                pending.error = None
            error = self._try_batch(batch)
        if error is not None:
            for pending in batch:  # every caller that waits must get an error, whatever it is
                pending.error = pending.error or error

    def _shrink_log(self) -> bool:
        """Move the log into the file; return whether that gave room back."""
        with contextlib.suppress(OSError), self._turn():
            return self._log.shrink(self._writing)
        return False

    def _try_batch(self, batch: list[Pending]) -> BaseException | None:
        """Run and commit the batch. Return the error, if there was one."""
        connection = self._writing
        try:
            with self._translated(), self._turn():
                try:
                    run_batch(_WritingSession(connection, self._path), batch, alone_may_fail=True)
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except BaseException as error:  # noqa: BLE001 - given to every waiter
            return error
        return None


class _WritingSession:
    """The writing connection while this process has its turn; see `WritingSession`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def begin(self) -> Transaction:
        self._connection.execute("BEGIN IMMEDIATE")
        return SqliteTransaction(self._connection)

    def say(self, command: str) -> None:
        self._connection.execute(command)

    def stands(self, error: BaseException) -> bool:  # noqa: ARG002 - the connection knows
        return self._connection.in_transaction

    def translate(self, error: BaseException) -> BaseException:
        return translate(error, self._path) if isinstance(error, sqlite3.Error) else error
