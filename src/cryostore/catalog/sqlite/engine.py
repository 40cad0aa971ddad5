"""The catalog on SQLite: one file, any number of processes on one machine.

Writes of one process share commits (`group_commit`): a durable write costs a share of an fsync. Between processes an
flock taken before BEGIN IMMEDIATE keeps turns fair, where SQLite's own busy handler would sleep. Reads take connections
from a pool and never wait for writers (WAL).
"""

from __future__ import annotations

import contextlib
import errno
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
from cryostore.core.errors import DamagedDataError, StorageFullError, StorageUnavailableError

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
SHRINK_WAIT_MS = 200
"""How long giving the log's room back waits for readers."""
FULL = {sqlite3.SQLITE_FULL}
NEEDED_BYTES = 1 << 20
"""With less free than this, SQLite's other errors mean a full disk, too: of its index it does not say so."""
FULL_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNSAID = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


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
        """SQLite does so by itself, by the highest number there ever was in a table."""

    def problems(self, limit: int) -> list[str]:
        found = [row[0] for row in self.rows(f"PRAGMA integrity_check({limit})")]
        broken = self.rows("PRAGMA foreign_key_check")
        return [problem for problem in found if problem != "ok"] + [
            f"a row of {row[0]} refers to a row of {row[2]} that is not there" for row in broken[:limit]
        ]


class SqliteDatabase:
    """A `Database` in the file at `path`, which is created (0600) if absent.

    A process must not open and close the file by other means while it has this open: POSIX takes all of a process's
    locks on a file away when any descriptor of it is closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._log_in_the_way = False
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
            raise self._translate(error) from error

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        return self._group.write(work)

    def has_schema(self) -> bool:
        """Whether a catalog was ever made here."""
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
        """Tell errors apart by who can act on them."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._translate(error) from error
        except OSError as error:
            if error.errno in FULL_NUMBERS:
                raise StorageFullError.of_disk(f"catalog {self._path.absolute()}") from error
            raise StorageUnavailableError(f"the catalog cannot be used: {error.strerror}") from error

    def _translate(self, error: sqlite3.Error) -> Exception:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in DAMAGED:
            return DamagedDataError(f"the catalog is damaged: {error}")
        if not isinstance(error, sqlite3.OperationalError):
            return error
        cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if code in FULL else None
        if code in UNSAID:
            cause = _system_error(self._path.parent, code)
        if cause is None:
            return StorageUnavailableError(f"the catalog cannot be used: {error}")
        error.__cause__ = cause
        if cause.errno in FULL_NUMBERS:
            return StorageFullError.of_disk(f"catalog {self._path.absolute()}")
        return StorageUnavailableError(f"the catalog cannot be used: {error} ({cause.strerror})")

    def _open(self) -> sqlite3.Connection:
        """The connection that writes, and with it the file."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with self._turn():
            return self._connect("journal_mode = WAL")

    def _connect(self, purpose: str) -> sqlite3.Connection:
        """A connection with our settings, and with one more for its purpose."""
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
        """A connection to read with, for one thread at a time."""
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
        """Run and commit the batch as one transaction; on a full disk once more, if the log's room comes back.

        The log can only be moved into the file if that may grow. So whoever made a little room after a failure has it
        used for that first: left to itself, the log would take it, and nothing would ever come back.
        """
        if self._log_in_the_way:
            self._shrink_log()
        error = self._try_batch(batch)
        if isinstance(error, StorageFullError) and self._shrink_log():
            for pending in batch:
                pending.error = None
            error = self._try_batch(batch)
        if error is not None:
            for pending in batch:  # every waiter must hear of it, whatever it is
                pending.error = pending.error or error

    def _shrink_log(self) -> bool:
        """Move what the log holds into the file and cut the log off; answers whether that gave room back."""
        log = self._path.with_name(f"{self._path.name}-wal")
        self._log_in_the_way = True
        try:
            before = log.stat().st_size
            with self._turn():
                self._writing.execute(f"PRAGMA busy_timeout = {SHRINK_WAIT_MS}")
                try:
                    self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    self._writing.execute(f"PRAGMA busy_timeout = {BUSY_WAIT_MS}")
            after = log.stat().st_size
        except (sqlite3.Error, OSError):
            return False
        self._log_in_the_way = after > 0
        return after < before

    def _try_batch(self, batch: list[Pending]) -> BaseException | None:
        """Run and commit the batch. Answers what failed."""
        connection = self._writing
        try:
            with self._translated(), self._turn():
                try:
                    run_batch(_WritingSession(connection, self._translate), batch, alone_may_fail=True)
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except BaseException as error:  # noqa: BLE001 - given to every waiter
            return error
        return None


class _WritingSession:
    """The connection that writes, while it is its process's turn; see `WritingSession`."""

    def __init__(self, connection: sqlite3.Connection, translate: Callable[[sqlite3.Error], Exception]) -> None:
        self._connection = connection
        self._translate = translate

    def begin(self) -> Transaction:
        self._connection.execute("BEGIN IMMEDIATE")
        return SqliteTransaction(self._connection)

    def say(self, command: str) -> None:
        self._connection.execute(command)

    def stands(self, error: BaseException) -> bool:  # noqa: ARG002 - the connection knows
        return self._connection.in_transaction

    def translate(self, error: BaseException) -> BaseException:
        return self._translate(error) if isinstance(error, sqlite3.Error) else error


def _system_error(directory: Path, code: int) -> OSError | None:
    """The system's error behind one of SQLite's, as far as it can still be seen: Python does not hand it on."""
    try:
        os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))  # the file must not be opened here
        status = os.statvfs(directory)
    except OSError as error:
        return error
    number = errno.EIO if code == sqlite3.SQLITE_IOERR else None
    if status.f_flag & os.ST_RDONLY:
        number = errno.EROFS
    elif status.f_bavail * status.f_frsize < NEEDED_BYTES or (status.f_files and not status.f_favail):
        number = errno.ENOSPC
    return None if number is None else OSError(number, os.strerror(number))
