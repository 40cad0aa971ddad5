"""The SQLite catalog on a full or failing disk, and without file descriptors."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import types
from contextlib import closing

import pytest

from cryostore.catalog import open_catalog
from cryostore.catalog.sqlite import engine, full_disk
from cryostore.core.errors import StorageFullError, StorageUnavailableError
from support.faults.small_disk import small_disk


@pytest.fixture
def path(tmp_path):
    return tmp_path / "catalog.sqlite"


@pytest.fixture
def database(path):
    with closing(open_catalog(path)) as database:
        yield database


def fill_table(database, count=1):
    database.write(
        lambda transaction: [transaction.run("INSERT INTO thing VALUES (:n)", n=b"x" * 3000) for _ in range(count)]
    )


def test_a_full_disk_raises_and_has_no_partial_effect(tmp_path):
    with small_disk(tmp_path / "disk", 4) as disk, closing(open_catalog(disk.path / "c.sqlite")) as database:
        database.write(lambda transaction: transaction.run("CREATE TABLE thing (name BLOB)"))
        done = []

        def fill():
            while True:
                fill_table(database)
                done.append(True)

        with pytest.raises(StorageFullError, match="disk full on .*: no space left") as caught:
            fill()
        assert caught.value.__cause__.__cause__.errno == errno.ENOSPC
        assert database.read(lambda transaction: transaction.row("SELECT count(*) FROM thing")) == (len(done),)


def test_moving_the_log_into_the_file_frees_space(tmp_path):
    """If the log has filled the disk, a little space is enough: the log is moved into the file first."""
    with small_disk(tmp_path / "disk", 4) as disk, closing(open_catalog(disk.path / "c.sqlite")) as database:
        log = disk.path / "c.sqlite-wal"
        database.write(lambda transaction: transaction.run("CREATE TABLE thing (name BLOB)"))
        fill_table(database, 20)
        for _ in range(10):  # the same pages, again and again: only the log grows
            database.write(lambda transaction: transaction.run("UPDATE thing SET name = zeroblob(3000)"))
        assert log.stat().st_size > 400_000
        disk.fill()
        with pytest.raises(StorageFullError):
            fill_table(database, 1000)
        assert database._writing.execute("PRAGMA busy_timeout").fetchone() == (engine.BUSY_WAIT_MS,)
        disk.clear()
        disk.fill(but_bytes=400_000)
        database.write(lambda transaction: transaction.run("DELETE FROM thing"))
        assert log.stat().st_size < 200_000


@pytest.mark.parametrize(
    ("flags", "free", "expected", "kind"),
    [
        (os.ST_RDONLY, 1 << 30, "disk I/O error (Read-only file system)", StorageUnavailableError),
        (0, 0, "disk full on HOST: catalog PATH: no space left", StorageFullError),
        (0, 1 << 30, "disk I/O error (Input/output error)", StorageUnavailableError),
    ],
)
def test_a_full_disk_that_sqlite_does_not_report_is_found(path, monkeypatch, flags, free, expected, kind):
    status = os.statvfs(path.parent)
    seen = types.SimpleNamespace(f_flag=flags, f_bavail=free, f_frsize=1, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda _: seen)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    told = full_disk.translate(error, path)
    assert status
    assert type(told) is kind
    shown = told.message.replace(str(path), "PATH").replace(os.uname().nodename, "HOST")
    assert shown == (expected if kind is StorageFullError else f"the catalog cannot be used: {expected}")


def test_reads_fail_without_descriptors_and_succeed_again_with_them(database, path):
    database.write(lambda transaction: transaction.run("CREATE TABLE thing (name BLOB)"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(StorageUnavailableError, match="Too many open files") as caught:
            database.read(lambda transaction: transaction.row("SELECT count(*) FROM thing"))
        fill_table(database)  # the writing connection is open
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.__cause__.__cause__.errno == errno.EMFILE
    assert database.read(lambda transaction: transaction.row("SELECT count(*) FROM thing")) == (1,)
