"""Databases on the PostgreSQL server that CRYO_TEST_POSTGRES names: an unused one for each test.

Creating one takes a second on a busy machine, so a process keeps its databases and empties them between tests.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cryostore.catalog.postgres.engine import PostgresDatabase

VARIABLE = "CRYO_TEST_POSTGRES"
NUMBERS = itertools.count(1)
VERSIONS = ("schema_version", "schema_reader")
CLOSE_OTHERS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
)
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
REFERRING_FIRST = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    " ORDER BY (SELECT count(*) FROM pg_constraint WHERE conrelid = pg_class.oid AND contype = 'f') DESC"
)
SEQUENCES = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'"


def required():
    """Return the URL of the server. Skips the test if there is none."""
    url = os.environ.get(VARIABLE)
    if not url:
        pytest.skip(f"needs PostgreSQL: {VARIABLE} is not set (scripts/postgres starts one)")
    return url


def at(url, name, port=None):
    """Return the URL of another database on the same server, or on another port."""
    given = conninfo_to_dict(url)
    password = f":{given['password']}" if "password" in given else ""
    return f"postgresql://{given['user']}{password}@{given['host']}:{port or given['port']}/{name}"


@contextlib.contextmanager
def new_database(*, migrated=True):
    """The URL of an unused database: with the newest schema and its first rows, or empty."""
    url = required()
    store = _store(url)
    name = store.take(migrated=migrated)
    try:
        yield at(url, name)
    finally:
        store.give_back(name, migrated=migrated)


def _close_others(connection):
    """End every other connection to the database.

    A backend that ends by itself has no role for a moment, and PostgreSQL then refuses to end it. It is asked again.
    """
    for _ in range(100):
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            connection.execute(CLOSE_OTHERS)
            return
    connection.execute(CLOSE_OTHERS)


@functools.cache
def _store(url):
    return _Store(url)


class _Store:
    """The databases that this process has created and may use again."""

    def __init__(self, url):
        self.url = url
        self.administrator = psycopg.connect(url, autocommit=True)
        self.idle = {True: [], False: []}
        self.first_rows = {}
        self.made = []
        atexit.register(self.close)

    def take(self, *, migrated):
        if self.idle[migrated]:
            return self.idle[migrated].pop()
        name = f"cryo_test_{os.getpid()}_{next(NUMBERS)}"
        self.administrator.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        self.made.append(name)
        if migrated:
            database = PostgresDatabase(at(self.url, name))
            database.migrate()
            database.close()
            self._remember(name)
        return name

    def give_back(self, name, *, migrated):
        with psycopg.connect(at(self.url, name), autocommit=True) as connection:
            _close_others(connection)
            if migrated:
                connection.execute("; ".join(self._to_first_rows(connection)), prepare=False)
            else:
                connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public", prepare=False)
        self.idle[migrated].append(name)

    def _remember(self, name):
        with psycopg.connect(at(self.url, name), autocommit=True) as connection:
            tables = [row[0] for row in connection.execute(TABLES) if row[0] not in VERSIONS]
            for table in tables:
                (self.first_rows[table],) = connection.execute(
                    f"SELECT json_agg(to_json(one))::text FROM {table} AS one"
                ).fetchone()

    def _to_first_rows(self, connection):
        for (table,) in connection.execute(TABLES).fetchall():
            if table not in (*self.first_rows, *VERSIONS):
                yield f"DROP TABLE {table} CASCADE"
        for (table,) in connection.execute(REFERRING_FIRST).fetchall():
            if table in self.first_rows:
                yield f"DELETE FROM {table}"
        for table, rows in self.first_rows.items():
            if rows is not None:
                saved = f"json_populate_recordset(NULL::public.{table}, '{rows}')"
                yield f"INSERT INTO public.{table} SELECT * FROM {saved}"
        for (sequence,) in connection.execute(SEQUENCES).fetchall():
            yield f"ALTER SEQUENCE {sequence} RESTART"

    def close(self):
        with contextlib.suppress(psycopg.OperationalError):  # the server may have stopped
            for name in self.made:
                self.administrator.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.administrator.close()
