"""The PostgreSQL server that holds a catalog: its URL, its settings, and its clock.

- The URL is checked, and shown without its password.
- `cryo doctor` reports the settings and rights on which the catalog depends.
- All nodes of a store share the clock of the database.
"""

from __future__ import annotations

import re
import threading
import time
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from cryostore.catalog.database import Transaction
from cryostore.core.errors import ConfigurationError
from cryostore.core.time import MINUTE_MS

LIBPQ_WITH_SYSTEM_ROOTS = 160_000
"""The first libpq that does not read `sslrootcert=system` as a file name. psycopg's wheels bundle a later one."""
CONNECT_SECONDS = 5
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
"""Defaults for libpq: a peer that is silent for 20 seconds counts as gone."""
WRITABLE = ("read-write", "primary")
AT_IN_NAME = re.compile("[a-z]*://[^/]*/[^?]*@")
FIND_SETTINGS = (
    "SELECT current_setting('server_version'),"
    " current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on',"
    " CAST(current_setting('max_pred_locks_per_transaction') AS BIGINT),"
    " current_setting('data_checksums') = 'on',"
    " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),"
    " CAST(current_setting('max_connections') AS BIGINT),"
    " coalesce(bool_and(has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')"
    " AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')), false),"
    " coalesce(bool_and(pg_has_role(relowner, 'USAGE')), false)"
    " AND has_schema_privilege(CAST(current_schema() AS text), 'CREATE')"
    " FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = CAST(current_schema() AS regnamespace)"
)
MEASURED_EVERY_SECONDS = 30
STEP_BACK_MS = MINUTE_MS
"""The clock follows the database back by this much or more: then its time was wrong before.

The clocks of a database and its replicas may differ by less.
"""


class ServerUrl:
    """The URL of a catalog, with one host or several. Of several, one takes writes. `shown` hides the password.

    Raises ConfigurationError if the URL cannot be parsed, or would accept a server that takes no writes. The message
    does not repeat the URL: if a character of the password is not escaped (`%40` for `@`), parts of the password end up
    in other parts of the URL.
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
    """Return the hosts as a URL writes them."""
    hosts, ports = host.split(","), port.split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    shown = (f"[{name}]" if ":" in name else name for name in hosts)
    return ",".join(f"{name}:{number}" if number else name for name, number in zip(shown, ports, strict=False))


class ServerSettings(NamedTuple):
    """Settings of the server, and what this role may do in the catalog."""

    version: str
    is_flushed: int
    """Whether a commit is on the disk before it is acknowledged (`fsync`, `full_page_writes`)."""
    predicate_locks: int
    has_checksums: int
    sessions: int
    sessions_max: int
    may_write: int
    """Whether the role may read and change every table."""
    may_migrate: int
    """Whether the role owns the tables and may create more."""


def find_settings(transaction: Transaction) -> ServerSettings:
    """Read the current settings. Works on PostgreSQL only."""
    row = transaction.row(FIND_SETTINGS)
    assert row is not None
    return ServerSettings(*row)


def _elapsed_seconds() -> float:
    """Return seconds of a steady clock that also counts suspension, where the system supports that."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class DatabaseClock:
    """A `Clock` that counts on from the last measured time of the database.

    It never goes back by less than `STEP_BACK_MS`: it stands still instead. It ignores the wall clock of this machine.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measured_ms = 0
        self._measured_at: float | None = None
        self._last_ms = 0

    @property
    def is_due(self) -> bool:
        """Whether the time should be measured again."""
        return self._measured_at is None or _elapsed_seconds() - self._measured_at >= MEASURED_EVERY_SECONDS

    def begin(self) -> float:
        """Call before asking the database for its time; pass the result to `end`."""
        return _elapsed_seconds()

    def end(self, began: float, database_ms: int) -> None:
        """Adopt the database's answer, as its time in the middle between the question and now."""
        with self._lock:
            self._measured_at = (began + _elapsed_seconds()) / 2
            self._measured_ms = database_ms
            if self._last_ms - database_ms >= STEP_BACK_MS:
                self._last_ms = 0

    def __call__(self) -> int:
        with self._lock:
            assert self._measured_at is not None
            passed_ms = (_elapsed_seconds() - self._measured_at) * 1000
            self._last_ms = max(self._last_ms, self._measured_ms + int(passed_ms))
            return self._last_ms
