"""Schema migration: from every version, atomically, by one process at a time, and never backwards.

The content of rows in old directories: `tests/golden/test_stores.py`.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import resources

import pytest

from cryostore.catalog import open_catalog
from cryostore.catalog.migration import migrate_to_newest, statements
from cryostore.catalog.sqlite.engine import DIALECT, SqliteDatabase
from cryostore.core.errors import ConfigurationError
from cryostore.service.opening.open import open_service
from support.stores.golden_store import STORES
from support.stores.store_copy import copied

ENTRIES = sorted(
    (entry for entry in resources.files("cryostore.catalog.migrations").iterdir() if entry.name.endswith(".sql")),
    key=lambda entry: entry.name,
)
NEWEST = len(ENTRIES)
GOLDEN = sorted(STORES.glob("schema-*"))
PROCESSES = 4

# Migrates the catalog at argv[1], and is killed at statement number argv[2]; the last one is the COMMIT.
KILLED = """
import itertools, os, signal, sys
from pathlib import Path
from cryostore.catalog.sqlite.engine import SqliteDatabase
database = SqliteDatabase(Path(sys.argv[1]))
numbers = itertools.count(1)
def look(statement):
    if statement.startswith("BEGIN"):
        return
    if next(numbers) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
database._writing.set_trace_callback(look)
database.migrate()
print(next(numbers) - 1)
"""

# Reports that it is ready, waits for a line, and migrates.
MIGRATING = """
import sys
from pathlib import Path
from cryostore.catalog import open_catalog
print("ready", flush=True)
sys.stdin.readline()
open_catalog(Path(sys.argv[1])).close()
"""


def catalog_of_version(path, version):
    """Create a catalog of a version step by step, with the version rows of its time."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        if version:
            connection.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
        for number, entry in enumerate(ENTRIES[:version], start=1):
            for statement in statements(entry.read_text(), DIALECT):
                connection.execute(statement)
            connection.execute("INSERT INTO schema_version (version) VALUES (?)", (number,))
    return path


def content(path):
    """Return the whole content of a catalog: its schema and its rows."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return list(connection.iterdump())


def schema(path):
    """Return the tables and indexes of a catalog, and its history of versions."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = sorted(map(repr, connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")))
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return tables, [row[0] for row in connection.execute("SELECT version FROM schema_version ORDER BY version")]


def files(folder):
    """Return the bytes of every file, except the index of the log, which is never on the disk."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite-shm"}


@pytest.fixture
def newest(tmp_path):
    """Return the schema of a new catalog."""
    path = tmp_path / "new.sqlite"
    open_catalog(path).close()
    return schema(path)


def test_the_numbers_of_the_steps_have_no_gap():
    assert [int(entry.name.partition("_")[0]) for entry in ENTRIES] == list(range(1, NEWEST + 1))


@pytest.mark.parametrize("version", range(NEWEST + 1))
def test_every_version_is_migrated_to_the_same_schema(tmp_path, newest, version):
    path = catalog_of_version(tmp_path / "old.sqlite", version)
    open_catalog(path).close()
    assert schema(path) == newest


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_golden_catalogs_are_migrated_to_the_same_schema(tmp_path, newest, golden):
    path = copied(golden / "data", tmp_path / "data") / "catalog.sqlite"
    open_catalog(path).close()
    assert schema(path) == newest


class BrokenOffError(Exception):
    """Raised by a statement of the test."""


class Breaking:
    """A transaction whose statement number `at` fails."""

    def __init__(self, inner, at):
        self.inner, self.at, self.row = inner, at, inner.row

    def run(self, statement, **values):
        self.at -= 1
        if not self.at:
            raise BrokenOffError
        return self.inner.run(statement, **values)


@pytest.mark.parametrize("version", range(NEWEST))
def test_a_failed_statement_leaves_the_old_version(tmp_path, newest, version):
    """Each statement fails in turn, and the next attempt succeeds."""
    path = catalog_of_version(tmp_path / "old.sqlite", version)
    with closing(SqliteDatabase(path)) as database:
        before = content(path)
        at = 1
        while _breaks_off(database, at):
            assert content(path) == before
            at += 1
        assert at > len(statements(ENTRIES[version].read_text(), DIALECT))
    assert schema(path) == newest


def _breaks_off(database, at):
    try:
        database.write(lambda transaction: migrate_to_newest(Breaking(transaction, at), DIALECT))
    except BrokenOffError:
        return True
    return False


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_a_killed_process_leaves_the_old_version(tmp_path, newest, golden):
    """It is killed at each statement up to the COMMIT, on a catalog with rows. The next process succeeds."""
    path = copied(golden / "data", tmp_path / "data") / "catalog.sqlite"
    before = content(path)
    at = 1
    while (done := _killed(path, at)).returncode == -signal.SIGKILL:
        assert content(path) == before, f"killed at statement {at}"
        at += 1
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == at - 1 > 2
    assert schema(path) == newest


def _killed(path, at):
    command = [sys.executable, "-c", KILLED, str(path), str(at)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_several_processes_migrate_at_once(tmp_path, newest):
    """One of them migrates; the others find the newest schema."""
    for version in (0, NEWEST - 1):
        path = catalog_of_version(tmp_path / f"from {version}.sqlite", version)
        command = [sys.executable, "-c", MIGRATING, str(path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(PROCESSES)]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * PROCESSES
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0)] * PROCESSES
        assert schema(path) == newest


def test_a_newer_schema_is_refused_and_unchanged(tmp_path):
    """The error says what to do, and no byte of the directory changes."""
    data_dir = tmp_path / "data"
    open_service(data_dir).close()
    with closing(sqlite3.connect(data_dir / "catalog.sqlite")) as connection:
        connection.execute("INSERT INTO schema_version (version) VALUES (?)", (NEWEST + 1,))
        connection.commit()
    before = files(data_dir)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=f"schema version {NEWEST + 1}.*up to {NEWEST}") as refused:
            open_service(data_dir)
        assert "newer Cryostore" in refused.value.hint
        assert files(data_dir) == before
