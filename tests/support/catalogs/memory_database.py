"""A `Database` in memory, for tests that need many: one connection, one caller at a time, nothing durable."""

from __future__ import annotations

import functools
import sqlite3
import threading
import weakref

from cryostore.catalog.migration import migrate_to_newest
from cryostore.catalog.sqlite import engine as sqlite


@functools.cache
def migrated():
    """Return an empty catalog, to be copied."""
    database = MemoryDatabase(template=None)
    database.write(functools.partial(migrate_to_newest, dialect=sqlite.DIALECT))
    return database


class MemoryDatabase:
    """Starts as an empty catalog with the newest schema."""

    def __init__(self, template=migrated):
        self.connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        # Some tests make thousands and drop them without closing, as a killed process does.
        weakref.finalize(self, self.connection.close)
        # A unit of work that starts another one fails at BEGIN instead of waiting for itself.
        self._lock = threading.RLock()
        if template is not None:
            template().connection.backup(self.connection)
        self.connection.execute("PRAGMA foreign_keys = ON")

    def read(self, work):
        with self._lock:
            self.connection.execute("BEGIN")
            try:
                return work(sqlite.SqliteTransaction(self.connection))
            finally:
                self.connection.execute("ROLLBACK")

    def write(self, work):
        with self._lock:
            self.connection.execute("BEGIN")
            try:
                answer = work(sqlite.SqliteTransaction(self.connection))
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")
            return answer

    def migrate(self):
        """Do nothing: the schema is the newest."""

    def close(self):
        self.connection.close()
