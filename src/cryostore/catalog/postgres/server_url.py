"""URL of the PostgreSQL database that holds a catalog: checked, and shown without its password."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from cryostore.core.errors import ConfigurationError

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


class ServerUrl:
    """The URL of a catalog: one host, or several of which one takes writes. `shown` is the URL without its password.

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
