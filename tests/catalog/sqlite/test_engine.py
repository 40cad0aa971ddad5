"""The SQLite engine: the contract of every Database, several processes, settings and damage."""

from __future__ import annotations

import fcntl
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from conformance.database import DatabaseTests, FullDatabaseTests, GroupCommitTests, add, names
from cryostore.catalog import migration, open_catalog
from cryostore.catalog.group_commit import Pending
from cryostore.catalog.migration import statements
from cryostore.catalog.sqlite import engine as sqlite
from cryostore.catalog.sqlite.engine import DIALECT, SqliteDatabase, SqliteTransaction
from cryostore.core.errors import DamagedDataError, StorageUnavailableError

COVERS = ("catalog/group_commit.py",)


class TestSqliteDatabase(GroupCommitTests, FullDatabaseTests, DatabaseTests):
    """A database in one file, which several processes open."""

    blob = "BLOB"

    @pytest.fixture
    def place(self, tmp_path):
        return tmp_path / "catalog.sqlite"

    @staticmethod
    def open_database(place):
        return SqliteDatabase(place)

    def limit_space(self, database, *, limited):
        (pages,) = database._writing.execute("PRAGMA page_count").fetchone()
        database._writing.execute(f"PRAGMA max_page_count = {pages + 2 if limited else 1 << 30}")

    @pytest.fixture
    def database(self, place):
        with closing(CountingDatabase(place)) as database:
            database.write(lambda transaction: transaction.run("CREATE TABLE thing (name BLOB UNIQUE, number BIGINT)"))
            yield database

    def commits(self, database):
        return database.commits

    def wait_for_queue(self, database, length):
        while database._group.waiting() < length:
            time.sleep(0)


class CountingDatabase(SqliteDatabase):
    """Counts the commits of its writing connection."""

    def __init__(self, path):
        self.commits = 0
        super().__init__(path)
        self._writing.set_trace_callback(self._count)

    def _count(self, statement):
        self.commits += statement == "COMMIT"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "catalog.sqlite"


@pytest.fixture
def database(path):
    with closing(open_catalog(path)) as database:
        yield database


def test_only_the_owner_may_access_the_files(database, path):
    """The umask does not matter."""
    database.write(lambda transaction: transaction.run("CREATE TABLE thing (name BLOB)"))
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert len(modes) == 4
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {}


def test_commits_wait_for_the_disk(database):
    """Without a flush, a power failure could lose a commit."""
    settings = {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1}
    with closing(database._borrow()) as reading:
        for connection in (database._writing, reading):
            for name, value in settings.items():
                assert connection.execute(f"PRAGMA {name}").fetchone() == (value,)


def test_every_commit_is_flushed(tmp_path):
    """strace sees at least as many flushes of the log as one writer has commits."""
    program = (
        "import sys; from pathlib import Path; from cryostore.catalog.sqlite.engine import SqliteDatabase\n"
        "database = SqliteDatabase(Path(sys.argv[1]))\n"
        "database.write(lambda t: t.run('CREATE TABLE thing (name BLOB)'))\n"
        "for number in range(20): database.write(lambda t: t.run('INSERT INTO thing VALUES (:n)', n=b'x'))\n"
    )
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=fdatasync,fsync", "-o", str(trace), sys.executable, "-c", program]
    try:
        subprocess.run([*command, str(tmp_path / "c.sqlite")], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("strace cannot be used here")
    assert trace.read_text().count("sync(") >= 21


@pytest.mark.parametrize("kind", ["a directory", "nowhere"])
def test_an_unusable_path_raises(tmp_path, kind):
    place = tmp_path / "missing" / "catalog.sqlite" if kind == "nowhere" else tmp_path / "catalog.sqlite"
    if kind == "a directory":
        place.mkdir()
    with pytest.raises(StorageUnavailableError):
        SqliteDatabase(place)


def test_a_file_that_is_not_a_database_raises_and_is_kept(path):
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(DamagedDataError):
        open_catalog(path)
    assert path.read_bytes() == b"this is no database" * 1000


def test_a_damaged_page_raises(path):
    """Overwritten bytes in the middle of the file are an error, never wrong rows."""
    with closing(open_catalog(path)) as database:
        database.write(lambda t: t.run("CREATE TABLE thing (name BLOB UNIQUE, number BIGINT)"))
        for number in range(300):
            database.write(add(b"%03d" % number + bytes(100)))
    raw = bytearray(path.read_bytes())
    place = raw.rindex(b"150" + bytes(100))
    page = place - place % 4096
    raw[page : page + 4096] = b"\xaa" * 4096
    path.write_bytes(raw)
    with closing(SqliteDatabase(path)) as database, pytest.raises(DamagedDataError):
        database.read(lambda t: t.rows("SELECT name, number FROM thing NOT INDEXED"))


def test_opening_again_drops_no_lock(path):
    """POSIX drops all locks of a process on a file when it closes any descriptor of it.

    Then another process that closes the database would believe to be the last one, and remove the log.
    """
    with closing(open_catalog(path)) as first:
        first.write(lambda t: t.run("CREATE TABLE thing (name BLOB UNIQUE, number BIGINT)"))
        first.write(add(b"a"))
        SqliteDatabase(path).close()
        program = (
            "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]);"
            " connection.execute('SELECT * FROM thing').fetchall(); connection.close()"
        )
        subprocess.run([sys.executable, "-c", program, str(path)], check=True)
        assert path.with_name(path.name + "-wal").exists()
        first.write(add(b"b"))
        assert first.read(names) == [b"a", b"b"]


def test_a_failed_opening_leaves_no_descriptor_open(path):
    path.write_bytes(b"no database" * 1000)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(DamagedDataError):
            SqliteDatabase(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_reading_connections_are_reused(database):
    for _ in range(20):
        database.read(lambda transaction: transaction.row("SELECT 1"))
    assert len(database._idle) == 1


def test_a_read_in_progress_succeeds_when_the_database_is_closed(path):
    """The read gets its result, and its connection is closed."""
    database = open_catalog(path)
    closer = threading.Thread(target=database.close)

    def work(transaction):
        closer.start()
        closer.join()
        return transaction.row("SELECT count(*) FROM vault")

    assert database.read(work) == (0,)
    assert database._idle == []


def test_a_failed_commit_fails_every_unit_of_work_in_it(database):
    """None of them has any effect."""
    database.write(lambda t: t.run("CREATE TABLE thing (name BLOB UNIQUE, number BIGINT)"))

    def rolled_back_by_the_engine(transaction):
        add(b"b")(transaction)
        transaction._connection.execute("ROLLBACK")
        raise StorageUnavailableError("as on an I/O error")

    batch = [Pending(work) for work in (add(b"a"), rolled_back_by_the_engine, add(b"c"))]
    database._write_batch(batch)
    assert [type(pending.error) for pending in batch] == [StorageUnavailableError] * 3
    assert database.read(names) == []
    database.write(add(b"d"))
    assert database.read(names) == [b"d"]


def test_a_successful_batch_runs_once_without_savepoints(database):
    """A batch that fails is rolled back, and runs again so that each unit of work succeeds or fails alone."""
    database.write(lambda t: t.run("CREATE TABLE thing (name BLOB UNIQUE, number BIGINT)"))
    said, runs = [], []
    database._writing.set_trace_callback(said.append)

    def noted(name):
        return lambda transaction: (runs.append(name), add(name)(transaction))

    database._write_batch([Pending(noted(name)) for name in (b"a", b"b")])
    assert runs == [b"a", b"b"]
    assert [said[0], said[-1]] == ["BEGIN IMMEDIATE", "COMMIT"]
    assert not any("SAVEPOINT" in statement for statement in said)
    batch = [Pending(noted(name)) for name in (b"c", b"a", b"d")]
    database._write_batch(batch)
    assert [pending.error is None for pending in batch] == [True, False, True]
    assert runs[2:] == [b"c", b"a", b"c", b"a", b"d"]
    assert database.read(names) == [b"a", b"b", b"c", b"d"]


def test_a_single_unit_of_work_that_fails_runs_once(database):
    runs = []

    def work(transaction):
        runs.append(transaction.run("DELETE FROM vault"))
        raise ValueError

    with pytest.raises(ValueError, match="^$"):
        database.write(work)
    assert len(runs) == 1


def test_a_nested_unit_of_work_raises(database):
    """It would wait for itself forever."""
    with pytest.raises(AssertionError, match="another"):
        database.write(lambda _: database.write(lambda _: None))


def test_a_locked_database_is_unavailable_for_now(path, database):
    """Another program holds the lock. The engine waits a minute for it, in this test not at all."""
    database._writing.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailableError, match="locked"):
            database.write(lambda t: t.run("CREATE TABLE thing (name BLOB)"))
        other.execute("ROLLBACK")
    database.write(lambda t: t.run("CREATE TABLE thing (name BLOB)"))


def test_a_migration_is_all_or_nothing(path, monkeypatch):
    """A migration that fails in the middle leaves the database unchanged, and may be repeated."""
    honest = statements
    monkeypatch.setattr(migration, "statements", lambda *of: [*honest(*of)[:5], "CREATE NONSENSE"])
    with closing(SqliteDatabase(path)) as database:
        with pytest.raises(StorageUnavailableError):
            database.migrate()
        assert database.read(lambda t: t.rows("SELECT name FROM sqlite_master")) == []
        monkeypatch.undo()
        database.migrate()
        assert database.read(lambda t: t.row("SELECT count(*) FROM vault")) == (0,)


def test_statements_are_split():
    text = "-- a; comment\nCREATE TABLE one (\n  a {id},\n  b {blob}\n) {clustered};\n\nCREATE TABLE two (c TEXT);\n"
    assert statements(text, DIALECT) == [
        "CREATE TABLE one (\n  a INTEGER PRIMARY KEY AUTOINCREMENT,\n  b BLOB\n) WITHOUT ROWID",
        "CREATE TABLE two (c TEXT);",
    ]


def test_no_statement_stays_open_after_its_row(database):
    """An unfinished statement would keep its snapshot, and with it the log."""
    with closing(database._borrow()) as connection:
        assert SqliteTransaction(connection).row("SELECT 1 UNION SELECT 2") == (1,)
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        assert not connection.in_transaction


def test_a_commit_waits_for_its_turn_among_processes(database, monkeypatch):
    """The fair lock is held from before the transaction begins until after its commit."""
    said = []
    database._writing.set_trace_callback(said.append)
    operations = {fcntl.LOCK_EX: "lock", fcntl.LOCK_UN: "unlock"}
    monkeypatch.setattr(sqlite.fcntl, "flock", lambda _, operation: said.append(operations[operation]))
    database.write(lambda transaction: transaction.run("CREATE TABLE thing (name BLOB)"))
    assert said[:2] == ["lock", "BEGIN IMMEDIATE"]
    assert said[-2:] == ["COMMIT", "unlock"]
