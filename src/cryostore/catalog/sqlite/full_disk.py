"""What the SQLite catalog does when its disk is full or fails.

A full disk raises StorageFullError, and nothing of the write has happened. The write-ahead log is then moved into the
database file, which gives its room back; the write runs once more if that freed anything. Room that is kept for
deletes and garbage collection on a full disk: `chunks.disk_reserve`.

SQLite does not always say that the disk is full, and Python does not pass on the system's error. So after an I/O error
this module looks at the disk itself.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from cryostore.core.errors import DISK_FULL_ERRNOS, DamagedDataError, StorageFullError, StorageUnavailableError

SHRINK_WAIT_MS = 200
"""How long moving the log into the file waits for readers."""
FREE_BYTES_MIN = 1 << 20
"""With less free space than this, other errors of SQLite mean a full disk, too: it does not name a full WAL index."""
FULL = {sqlite3.SQLITE_FULL}
UNEXPLAINED = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
"""Errors that do not name their cause."""
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class WriteAheadLog:
    """The log of the database at `path`, which occupies room that the full disk needs."""

    def __init__(self, path: Path, *, busy_wait_ms: int) -> None:
        self._path = path.with_name(f"{path.name}-wal")
        self._busy_wait_ms = busy_wait_ms
        self.is_in_the_way = False
        """Whether an attempt to shrink it left bytes in it."""

    def shrink(self, connection: sqlite3.Connection) -> bool:
        """Move the log into the file and truncate it; return whether that gave room back.

        No other process may write meanwhile.
        """
        self.is_in_the_way = True
        try:
            before = self._path.stat().st_size
            connection.execute(f"PRAGMA busy_timeout = {SHRINK_WAIT_MS}")
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {self._busy_wait_ms}")
            after = self._path.stat().st_size
        except (sqlite3.Error, OSError):
            return False
        self.is_in_the_way = after > 0
        return after < before


def translate(error: sqlite3.Error, path: Path) -> Exception:
    """Return the error to raise for one of SQLite on the database at `path`; its own, if the statement was wrong."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in DAMAGED:
        return DamagedDataError(f"the catalog is damaged: {error}")
    if not isinstance(error, sqlite3.OperationalError):
        return error
    cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if code in FULL else None
    if code in UNEXPLAINED:
        cause = _system_error(path.parent, code)
    if cause is None:
        return StorageUnavailableError(f"the catalog cannot be used: {error}")
    error.__cause__ = cause
    if cause.errno in DISK_FULL_ERRNOS:
        return StorageFullError.of_disk(f"catalog {path.absolute()}")
    return StorageUnavailableError(f"the catalog cannot be used: {error} ({cause.strerror})")


def translate_system_error(error: OSError, path: Path) -> StorageUnavailableError:
    """Return the error to raise for one of the system on the database at `path`."""
    if error.errno in DISK_FULL_ERRNOS:
        return StorageFullError.of_disk(f"catalog {path.absolute()}")
    return StorageUnavailableError(f"the catalog cannot be used: {error.strerror}")


def _system_error(directory: Path, code: int) -> OSError | None:
    """Return the system's error behind one of SQLite's, if the state of the disk still shows it."""
    try:
        os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))  # the file must not be opened here
        status = os.statvfs(directory)
    except OSError as error:
        return error
    number = errno.EIO if code == sqlite3.SQLITE_IOERR else None
    if status.f_flag & os.ST_RDONLY:
        number = errno.EROFS
    elif status.f_bavail * status.f_frsize < FREE_BYTES_MIN or (status.f_files and not status.f_favail):
        number = errno.ENOSPC
    return None if number is None else OSError(number, os.strerror(number))
