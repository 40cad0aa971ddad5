"""The catalog on SQLite: one file, any number of processes on one machine.

Writes of one process are queued to one thread, which commits all that is waiting as one transaction (group commit): a
durable write costs a share of an fsync. Between processes an flock taken before BEGIN IMMEDIATE keeps turns fair, where
SQLite's own busy handler would sleep. Reads take connections from a pool and never wait for writers (WAL).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from cryostore.catalog.database import Answer, Row, Transaction
from cryostore.core.errors import (
    ConfigurationError,
    DamagedDataError,
    StorageFullError,
    StorageUnavailableError,
)

BATCH_MAX = 512
BUSY_WAIT_MS = 60_000
DIALECT = {
    "{id}": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "{blob}": "BLOB",
    "{clustered}": "WITHOUT ROWID",
}
SETTINGS = ("synchronous = FULL", "foreign_keys = ON", "cache_size = -4096", "wal_autocheckpoint = 4000")
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

    def row(self, statement: str, **values: Any) -> Row | None:
        # All rows are fetched, so that no statement stays open past the transaction.
        found = self._connection.execute(statement, values).fetchall()
        return found[0] if found else None

    def rows(self, statement: str, **values: Any) -> list[Row]:
        return self._connection.execute(statement, values).fetchall()


class _Pending:
    """A unit of work on its way through the writer thread."""

    __slots__ = ("answer", "done", "error", "work")

    def __init__(self, work: Callable[[Transaction], Any]) -> None:
        self.work = work
        self.answer: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


class SqliteDatabase:
    """A `Database` in the file at `path`, which is created (0600) if absent.

    A process must not open and close the file by other means while it has this open: POSIX takes all of a process's
    locks on a file away when any descriptor of it is closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._log_in_the_way = False
        self._closed = False
        self._closing = threading.Lock()
        """Held to look at `_closed` and act on it."""
        with self._translated():
            lock_path = path.with_suffix(".lock")
            self._lock_descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._writing = self._open()
            except BaseException:
                os.close(self._lock_descriptor)
                raise
        self._writer = threading.Thread(target=self._write_batches, name="catalog-writer", daemon=True)
        self._writer.start()

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
        assert threading.current_thread() is not self._writer, "a unit of work asks for another"
        pending = _Pending(work)
        with self._closing:
            self._check_open()
            self._queue.put(pending)
        pending.done.acquire()
        if pending.error is not None:
            raise pending.error
        answer: Answer = pending.answer
        return answer

    def migrate(self) -> None:
        self.write(migrate_to_newest)

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._writer.join()
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
            kind = StorageFullError if error.errno in FULL_NUMBERS else StorageUnavailableError
            raise kind(f"the catalog cannot be used: {error.strerror}") from error

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
        kind = StorageFullError if cause.errno in FULL_NUMBERS else StorageUnavailableError
        return kind(f"the catalog cannot be used: {error} ({cause.strerror})")

    def _check_open(self) -> None:
        if self._closed:
            raise StorageUnavailableError("the catalog is closed")

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
        with self._closing:
            self._check_open()
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
        with self._closing:
            if not self._closed:
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

    def _write_batches(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < BATCH_MAX and not self._queue.empty():
                pending = self._queue.get()
                if pending is None:
                    last = True
                    break
                batch.append(pending)
            self._write_batch(batch)
            for pending in batch:
                pending.done.release()
            if last:
                return

    def _write_batch(self, batch: list[_Pending]) -> None:
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
                self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                self._writing.execute(f"PRAGMA busy_timeout = {BUSY_WAIT_MS}")
            after = log.stat().st_size
        except (sqlite3.Error, OSError):
            return False
        self._log_in_the_way = after > 0
        return after < before

    def _try_batch(self, batch: list[_Pending]) -> BaseException | None:
        """Run and commit the batch, first as if all would go well: that is usual, and cheaper. Answers what failed."""
        connection = self._writing
        try:
            with self._translated(), self._turn():
                try:
                    if not self._run_together(connection, batch):
                        connection.execute("BEGIN IMMEDIATE")
                        for pending in batch:
                            self._run_in_savepoint(connection, pending)
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except BaseException as error:  # noqa: BLE001 - given to every waiter
            return error
        return None

    @staticmethod
    def _run_together(connection: sqlite3.Connection, batch: list[_Pending]) -> bool:
        """Begin, and run the batch; if a unit of work fails, take all back and answer false. What is alone may fail."""
        transaction = SqliteTransaction(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            for pending in batch:
                pending.answer = pending.work(transaction)
        except BaseException:
            if len(batch) == 1 or not connection.in_transaction:
                raise  # there is nobody to save from it, or SQLite itself has taken all back
            connection.execute("ROLLBACK")
            return False
        return True

    def _run_in_savepoint(self, connection: sqlite3.Connection, pending: _Pending) -> None:
        connection.execute("SAVEPOINT work")
        try:
            with self._translated():
                pending.answer = pending.work(SqliteTransaction(connection))
        except BaseException as error:
            pending.error = error
            if not connection.in_transaction:
                raise  # SQLite has rolled back the whole batch, as it may on a full disk or an I/O error
            connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")


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


def migrate_to_newest(transaction: Transaction) -> None:
    """Bring the schema up to date; raises ConfigurationError if a newer program made it."""
    transaction.run("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    row = transaction.row("SELECT max(version) FROM schema_version")
    version = (row and row[0]) or 0
    migrations = sorted(
        (entry for entry in resources.files("cryostore.catalog.migrations").iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    if version > len(migrations):
        raise ConfigurationError(
            f"the catalog has schema version {version}, this program knows versions up to {len(migrations)}",
            hint="start a newer Cryostore; a catalog is never taken back to an older version",
        )
    for number, entry in enumerate(migrations[version:], start=version + 1):
        for statement in statements(entry.read_text()):
            transaction.run(statement)
        transaction.run("INSERT INTO schema_version (version) VALUES (:version)", version=number)


def statements(text: str) -> list[str]:
    """The statements of a migration in SQLite's dialect."""
    for placeholder, words in DIALECT.items():
        text = text.replace(placeholder, words)
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return [statement.strip() for statement in "\n".join(lines).split(";\n") if statement.strip()]


__all__ = ["SqliteDatabase", "SqliteTransaction", "migrate_to_newest", "statements"]
