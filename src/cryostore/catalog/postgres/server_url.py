"""URL of the PostgreSQL database that holds a catalog: checked, and shown without its password."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from cryostore.core.errors import ConfigurationError

LIBPQ_WITH_SYSTEM_ROOTS = 160_000
"""The first libpq for which `sslrootcert=system` is no file name; the wheels of psycopg bundle a later one."""
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
"""For libpq, where the URL does not say otherwise: a peer that is silent for 20 seconds is gone."""
WRITABLE = ("read-write", "primary")
AT_IN_NAME = re.compile("[a-z]*://[^/]*/[^?]*@")


class ServerUrl:
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
