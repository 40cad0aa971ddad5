"""Sessions with a PostgreSQL server: opening, settings, values, and giving up on a server that does not answer.

Parameters of statements have names, and each Python type has one SQL type. Not here: units of work (`transaction`),
retries, and which thread uses which session (`engine`).
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
from typing import Any, TypeVar

import psycopg
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.types.numeric import Int8BinaryDumper, NumericBinaryLoader
from psycopg.types.string import StrBinaryDumper, TextBinaryLoader

from cryostore.catalog.database import Row
from cryostore.catalog.postgres.server import ServerUrl
from cryostore.core.errors import ConfigurationError

QUOTED_OR_PARAMETER = re.compile(r"('(?:[^']|'')*')|(?<!:):([a-z_][a-z0-9_]*)")
NOT_TEXT = re.compile("[\0\1]")
ESCAPED = re.compile("\1([\1\2])")
Value = TypeVar("Value")

VERSION_MIN = 15
STATEMENT_SECONDS = 60
"""The longest that a statement may take: counting the objects of the largest backups takes some seconds."""
ANSWER_SECONDS = STATEMENT_SECONDS + 15
"""The longest that a client waits for an answer. Then it treats the answer, and the session, as lost."""
IDLE_SECONDS = 3
"""The longest that the server waits for the next statement of a writing transaction, which holds locks.

It bounds how long a process that stops in the middle of a transaction blocks the others. A process that was only slow
runs the transaction again.
"""
READER_IDLE_SECONDS = 10
"""The same for a reading transaction, which blocks nobody."""
SETTINGS = f"""
    SET client_encoding = 'UTF8';
    SET default_transaction_isolation = 'serializable';
    SET statement_timeout = '{STATEMENT_SECONDS}s';
    SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s';
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SET plan_cache_mode = force_generic_plan;
    SET jit = off;
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write');
"""
"""Query plans do not depend on when the tables were last analysed: a query uses an index wherever one fits.

A commit is on the disk when it is acknowledged, whatever the server's default is.
"""
PREPARE_AFTER = 3
PREPARED_MAX = 400
ROLLBACKS = itertools.count()
logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns about statements that were skipped after a failed one


class _TextDumper(StrBinaryDumper):
    """Encodes text for the server: U+0000, which it refuses, as two characters, so that all texts keep their order."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(NOT_TEXT.sub(lambda found: "\1\1" if found[0] == "\0" else "\1\2", obj))


class _TextLoader(TextBinaryLoader):
    """Decodes text that `_TextDumper` encoded."""

    def load(self, data: Buffer) -> bytes | str:
        text = super().load(data)
        assert isinstance(text, str)
        return ESCAPED.sub(lambda found: "\0" if found[1] == "\1" else "\1", text) if "\1" in text else text


class _SumLoader(NumericBinaryLoader):
    """Decodes a sum of integers as an integer."""

    def load(self, data: Buffer) -> Any:
        return int(super().load(data))


class _TruthLoader(Loader):
    """Decodes a boolean as 1 or 0, as every engine does."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        return data[0]


def _adapters() -> AdaptersMap:
    """Return the adapters. Integers are always int8, so that a statement has one plan."""
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(bool, Int8BinaryDumper)
    adapters.register_dumper(str, _TextDumper)
    adapters.register_loader("text", _TextLoader)
    adapters.register_loader("numeric", _SumLoader)
    adapters.register_loader("bool", _TruthLoader)
    return adapters


ADAPTERS = _adapters()


@functools.lru_cache(maxsize=1000)
def translated(statement: str) -> bytes:
    """Return a statement with `:name` parameters in psycopg's notation."""

    def place(found: re.Match[str]) -> str:
        return found[1] or f"%({found[2]})s"

    return QUOTED_OR_PARAMETER.sub(place, statement.replace("%", "%%")).encode()


class Session(psycopg.Connection[Row]):
    """A connection with explicit transactions, and a limit on how long it waits for an answer."""

    answer_seconds: float | None = ANSWER_SECONDS

    @classmethod
    def open(cls, url: ServerUrl, *, answer_seconds: float | None = ANSWER_SECONDS) -> Session:
        """Connect. Raises psycopg.Error, or ConfigurationError if the server cannot be used."""
        session = cls.connect(**url.parameters, autocommit=True, context=ADAPTERS, prepare_threshold=PREPARE_AFTER)
        try:
            session.answer_seconds = answer_seconds
            session.prepared_max = PREPARED_MAX
            _check_server(session, url)
            session.say(SETTINGS)
        except BaseException:
            session.close()
            raise
        return session

    def wait(self, gen: PQGen[Value], interval: float = 0.1, timeout: float | None = None) -> Value:
        """Wait as psycopg does, but at most `answer_seconds`."""
        return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)

    def say(self, commands: str) -> psycopg.Cursor[Row]:
        """Run commands without values, all in one message."""
        return self.execute(commands.encode(), prepare=False)

    def commit_now(self) -> None:
        """Commit. Raises psycopg.Error if the server refuses; then nothing of the transaction happened."""
        assert self.info.transaction_status == TransactionStatus.INTRANS, "a statement failed and its error was dropped"
        self.say("COMMIT")

    def take_back(self, command: str = "ROLLBACK") -> None:
        """Roll back, perhaps to a savepoint, and forget which statements are prepared.

        After a failed statement the server skips the following ones, and psycopg does not notice that those were not
        prepared. It forgets all prepared statements at a ROLLBACK, but only for a text that it has never seen: so each
        gets a number.
        """
        self.say(f"{command} -- {next(ROLLBACKS)}")

    def leave(self) -> None:
        """Roll back an open transaction, if there is one and the session still works."""
        if self.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            self.take_back()


def _check_server(session: Session, url: ServerUrl) -> None:
    version = session.info.server_version // 10_000
    if version < VERSION_MIN:
        raise ConfigurationError(f"{url.shown} is PostgreSQL {version}; {VERSION_MIN} or newer is needed")
    encoding = session.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"{url.shown} keeps its texts as {encoding}; UTF8 is needed",
            hint="make the database with: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
        )
