"""One session with PostgreSQL: how it is opened, what it is set to, and how statements and values go and come back.

Does not live here: transactions that are tried again, and who uses which session (`postgres`).
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import AdaptersMap, Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format, TransactionStatus
from psycopg.types.numeric import Int8BinaryDumper, NumericBinaryLoader
from psycopg.types.string import StrBinaryDumper, TextBinaryLoader

from cryostore.catalog.database import Row, Statement
from cryostore.core.errors import ConfigurationError

Value = TypeVar("Value")

VERSION_MIN = 15
LIBPQ_WITH_SYSTEM_ROOTS = 160_000
"""The first libpq for which `sslrootcert=system` is no file name; the wheels of psycopg bundle a later one."""
CONNECT_SECONDS = 5
STATEMENT_SECONDS = 60
"""The longest that a statement may take: counting the objects of the largest backups takes some seconds."""
ANSWER_SECONDS = STATEMENT_SECONDS + 15
"""The longest that an answer is waited for. What comes later is taken for lost, and the session with it."""
IDLE_SECONDS = 3
"""The longest that the server waits for the next statement of a transaction that writes. Others wait for its locks: so
long does a process that stops in the middle of a transaction hold them up. A process that was only slow runs the
transaction again."""
READER_IDLE_SECONDS = 10
"""The same for a transaction that reads: nobody waits for it."""
NETWORK = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "target_session_attrs": "read-write",
    "application_name": "cryostore",
}
"""For libpq, where the URL does not say otherwise: a peer that is silent for 20 seconds is gone."""
WRITABLE = ("read-write", "primary")
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
"""Plans do not depend on when the tables were last analysed: whatever an index serves is read by it. A commit that is
answered is on the disk, whatever the server was set to."""
QUOTED_OR_PARAMETER = re.compile(r"('(?:[^']|'')*')|(?<!:):([a-z_][a-z0-9_]*)")
AT_IN_NAME = re.compile("[a-z]*://[^/]*/[^?]*@")
PREPARE_AFTER = 3
PREPARED_MAX = 400
ROLLBACKS = itertools.count()
WRONG_PAGES = (
    "SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database() AND checksum_failures > 0"
)
FOREIGN_KEYS = (
    "SELECT conrelid::regclass::text, own.attname::text, confrelid::regclass::text, other.attname::text"
    " FROM pg_constraint JOIN pg_attribute AS own ON own.attrelid = conrelid AND own.attnum = conkey[1]"
    " JOIN pg_attribute AS other ON other.attrelid = confrelid AND other.attnum = confkey[1]"
    " WHERE contype = 'f' AND connamespace = current_schema()::regnamespace ORDER BY conname"
)
logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of what was passed over when a statement failed
NOT_TEXT = re.compile("[\0\1]")
ESCAPED = re.compile("\1([\1\2])")


class _TextDumper(StrBinaryDumper):
    """Text as the server takes it, U+0000 in two characters, so that all texts keep their order."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(NOT_TEXT.sub(lambda found: "\1\1" if found[0] == "\0" else "\1\2", obj))


class _TextLoader(TextBinaryLoader):
    """The other way round."""

    def load(self, data: Buffer) -> bytes | str:
        text = super().load(data)
        assert isinstance(text, str)
        return ESCAPED.sub(lambda found: "\0" if found[1] == "\1" else "\1", text) if "\1" in text else text


class _SumLoader(NumericBinaryLoader):
    """A sum of whole numbers is a whole number."""

    def load(self, data: Buffer) -> Any:
        return int(super().load(data))


class _TruthLoader(Loader):
    """What is true or false is 1 or 0, as in every engine."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        return data[0]


def _adapters() -> AdaptersMap:
    """How values go and come: whole numbers always as int8, so that a statement has one plan."""
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
    """A statement with `:name` for its values in psycopg's words."""

    def place(found: re.Match[str]) -> str:
        return found[1] or f"%({found[2]})s"

    return QUOTED_OR_PARAMETER.sub(place, statement.replace("%", "%%")).encode()


class Place:
    """Where a catalog is, from its URL: a host, or several of which one takes writes. `shown` names it, no password.

    Raises ConfigurationError if the URL cannot be read, or would do with a server that takes no writes. What it holds
    is not told then: a character of a password that is not written as it must be (`%40` for `@`) moves the password to
    another part of the URL.
    """

    def __init__(self, url: str) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.Error:
            given = {}
        host, port = str(given.get("host", "")), str(given.get("port", ""))
        if (
            not given
            or "@" in host
            or AT_IN_NAME.match(url)
            or re.search(r"[^0-9,]", port)
            or not url.startswith(("postgres://", "postgresql://"))
        ):
            raise ConfigurationError(
                "the URL of the catalog cannot be read",
                hint="postgresql://USER@HOST:PORT/DATABASE, special characters of a password written as %40 for @",
            )
        if given.get("sslrootcert") == "system" and psycopg.pq.version() < LIBPQ_WITH_SYSTEM_ROOTS:
            version = psycopg.pq.version() // 10_000
            raise ConfigurationError(
                f"sslrootcert=system needs libpq 16 or later, and psycopg uses libpq {version} here",
                hint="name a file of certificates instead, such as sslrootcert=/etc/ssl/certs/ca-certificates.crt; "
                "or install psycopg[binary], which brings its own libpq",
            )
        self.parameters: dict[str, Any] = {**NETWORK, **given}
        user = f"{given['user']}@" if "user" in given else ""
        self.shown = f"postgresql://{user}{_shown_hosts(host, port)}/{given.get('dbname', '')}"
        if self.parameters["target_session_attrs"] not in WRITABLE:
            raise ConfigurationError(
                f"{self.shown} with that target_session_attrs may be a replica, and behind",
                hint="leave target_session_attrs out: of several hosts, the one that takes writes is used",
            )


def _shown_hosts(host: str, port: str) -> str:
    """The hosts as a URL has them."""
    hosts, ports = host.split(","), port.split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    shown = (f"[{name}]" if ":" in name else name for name in hosts)
    return ",".join(f"{name}:{number}" if number else name for name, number in zip(shown, ports, strict=False))


class Session(psycopg.Connection[Row]):
    """A connection that begins and ends transactions when told to, and gives up on a server that does not answer."""

    answer_seconds: float | None = ANSWER_SECONDS

    @classmethod
    def open(cls, place: Place) -> Session:
        """Connect. Raises psycopg.Error, or ConfigurationError if the server is none that can be used."""
        session = cls.connect(**place.parameters, autocommit=True, context=ADAPTERS, prepare_threshold=PREPARE_AFTER)
        try:
            session.prepared_max = PREPARED_MAX
            _check_server(session, place)
            session.say(SETTINGS)
        except BaseException:
            session.close()
            raise
        return session

    def wait(self, gen: PQGen[Value], interval: float = 0.1, timeout: float | None = None) -> Value:
        """As in psycopg, but not for ever."""
        return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)

    def say(self, commands: str) -> psycopg.Cursor[Row]:
        """Run commands without values, all in one message."""
        return self.execute(commands.encode(), prepare=False)

    def commit_now(self) -> None:
        """End the transaction well, or raise: psycopg.Error if the server refuses, and then nothing of it happened."""
        assert self.info.transaction_status == TransactionStatus.INTRANS, "a statement failed and its error was dropped"
        self.say("COMMIT")

    def take_back(self, command: str = "ROLLBACK") -> None:
        """Roll back, to a savepoint perhaps, and forget which statements are prepared.

        Of those that were passed over since one before them failed, the library does not know that they are not. It
        forgets all of them at a ROLLBACK, but only if it has never seen its text: so each is numbered.
        """
        self.say(f"{command} -- {next(ROLLBACKS)}")

    def leave(self) -> None:
        """Take back what is open, if anything is and the session still stands."""
        if self.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            self.take_back()


def _check_server(session: Session, place: Place) -> None:
    version = session.info.server_version // 10_000
    if version < VERSION_MIN:
        raise ConfigurationError(f"{place.shown} is PostgreSQL {version}; {VERSION_MIN} or newer is needed")
    encoding = session.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"{place.shown} keeps its texts as {encoding}; UTF8 is needed",
            hint="make the database with: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
        )


class PostgresTransaction:
    """Statements on one session; see `Transaction`."""

    __slots__ = ("_cursor", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self._cursor = session.cursor(binary=True)

    def run(self, statement: str, **values: Any) -> int:
        return self._execute(statement, values).rowcount

    def run_all(self, statements: Sequence[Statement]) -> list[int]:
        with self.session.pipeline():
            cursors = [self.session.cursor(binary=True) for _ in statements]
            for cursor, statement in zip(cursors, statements, strict=True):
                cursor.execute(translated(statement.text), statement.values)
        return [cursor.rowcount for cursor in cursors]

    def row(self, statement: str, **values: Any) -> Row | None:
        return self._execute(statement, values).fetchone()

    def rows(self, statement: str, **values: Any) -> list[Row]:
        return self._execute(statement, values).fetchall()

    def _execute(self, statement: str, values: Mapping[str, Any]) -> psycopg.Cursor[Row]:
        return self._cursor.execute(translated(statement), values)

    def pass_number(self, table: str, column: str, number: int) -> None:
        self.row(
            "SELECT setval(pg_get_serial_sequence(:table, :column), :number) WHERE :number >"
            " coalesce(pg_sequence_last_value(CAST(pg_get_serial_sequence(:table, :column) AS regclass)), 0)",
            table=table,
            column=column,
            number=number,
        )

    def problems(self, limit: int) -> list[str]:
        found = [f"PostgreSQL has met {row[0]} pages whose checksums are wrong" for row in self.rows(WRONG_PAGES)]
        for table, column, other, other_column in self.rows(FOREIGN_KEYS):
            alone = self.row(
                f"SELECT count(*) FROM {table} AS row WHERE {column} IS NOT NULL"
                f" AND NOT EXISTS (SELECT 1 FROM {other} AS other WHERE other.{other_column} = row.{column})"
            )
            if alone and alone[0]:
                found.append(f"{alone[0]} rows of {table} refer to rows of {other} that are not there")
        return found[:limit]


class MoreStatementsError(Exception):
    """A unit of work wants more than the one statement that it gets without a transaction of its own."""


class OneStatement(PostgresTransaction):
    """One statement, which is a transaction by itself. Raises MoreStatementsError at the next one."""

    __slots__ = ("_is_used",)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._is_used = False

    def _execute(self, statement: str, values: Mapping[str, Any]) -> psycopg.Cursor[Row]:
        if self._is_used:
            raise MoreStatementsError
        self._is_used = True
        return super()._execute(statement, values)

    def run_all(self, _statements: Sequence[Statement]) -> list[int]:
        raise MoreStatementsError

    def problems(self, _limit: int) -> list[str]:
        raise MoreStatementsError
