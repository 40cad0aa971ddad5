"""Errors of PostgreSQL: what each means to the engine, and the error that the caller gets."""

from __future__ import annotations

import re
from enum import Enum, auto

import psycopg
from psycopg import errors

from cryostore.core.errors import (
    ConfigurationError,
    CryostoreError,
    DamagedDataError,
    StorageFullError,
    StorageUnavailableError,
)

CONFLICTS = ("40001", "40P01", "55P03")
"""Serialization failure, deadlock, and a lock that was not available: other transactions were in the way."""
GONE = ("08", "57P", "25P03", "25P04")
"""Classes and codes of errors after which the server gives up the session."""
STANDBY = "25006"
"""Read-only transaction: in answer to a write, it means that this server is not, or not yet, the primary."""
FULL = ("53100",)
MEMORY = ("53200",)
STORAGE = ("53", "54", "57014", "58")
DAMAGED = ("XX001", "XX002")
PASSING = (
    "starting up",
    "shutting down",
    "in recovery",
    "too many clients",
    "connection slots",
    "accepting connections",
    "SSL SYSCALL",
)
"""Texts of refused connections that may succeed a moment later. libpq gives no codes for a refused connection."""
OF_ONE_HOST = re.compile(r"^- host: .*?, hostaddr: [^:]*(?:'[^']*'|None): (?:connection failed: )?(.*)", re.MULTILINE)
"""The line that psycopg writes for each of several hosts."""


class BehindError(psycopg.OperationalError):
    """A server lacks batches that were acknowledged to this process."""

    def __init__(self, batches: int) -> None:
        super().__init__(f"the server lacks {batches} writes of this process that were acknowledged")


class Reason(Enum):
    """Why a transaction failed."""

    CONFLICT = auto()
    """Another transaction was in the way: a retry may succeed."""
    RULE = auto()
    """A constraint of the schema: violated by the transaction itself, or because another one committed first."""
    LOST = auto()
    """The session is lost."""
    STORAGE = auto()
    """The server cannot work now."""
    OWN = auto()
    """The statement is wrong, wherever and whenever it runs."""


def reason(error: psycopg.Error, *, writing: bool) -> Reason:
    """Return why a transaction failed, from the error of one of its statements."""
    code = error.sqlstate or ""
    if code in CONFLICTS:
        return Reason.CONFLICT
    if code.startswith("23"):
        return Reason.RULE
    if code.startswith(GONE) or (writing and code == STANDBY):
        return Reason.LOST
    if code.startswith((*STORAGE, *DAMAGED)):
        return Reason.STORAGE
    if not code and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return Reason.LOST
    return Reason.OWN


def translate(error: psycopg.Error) -> Exception:
    """Return the error to raise to callers of `Database`."""
    if isinstance(error, BehindError):
        return StorageUnavailableError(
            f"the catalog cannot be used: {error}",
            hint="a replica took over that did not have them: "
            'see "Replicas and failover" in docs/operations/many-servers.md before you go on',
            part="catalog",
        )
    code = error.sqlstate or ""
    said = error.diag.message_primary or _in_a_line(error)
    if code.startswith(DAMAGED):
        return DamagedDataError(f"the catalog is damaged: {said}")
    if code in FULL:
        return StorageFullError(f"disk full on the catalog's PostgreSQL server: {said}", part="catalog")
    if code in MEMORY:
        return StorageUnavailableError(
            f"the catalog cannot be used: {said}", hint=error.diag.message_hint or "", part="catalog"
        )
    if reason(error, writing=False) in {Reason.RULE, Reason.OWN}:
        return error
    return StorageUnavailableError(f"the catalog cannot be used: {said}", part="catalog")


def refusal(error: psycopg.Error, shown: str) -> CryostoreError:
    """Return the error for a connection that was refused: ConfigurationError if waiting does not help."""
    said = error.diag.message_primary or _in_a_line(error)
    if isinstance(error, errors.InsufficientPrivilege):
        return ConfigurationError(
            f"{shown}: {said}", hint="make the role the owner of the database: ALTER DATABASE ... OWNER TO ..."
        )
    if is_refused_for_good(error):
        return ConfigurationError(
            f"{shown} refuses the connection: {said}",
            hint="check that the database and the role exist, and the password (PGPASSWORD, PGPASSFILE or in the URL)",
        )
    return StorageUnavailableError(f"{shown} cannot be reached: {said}")


def is_refused_for_good(error: psycopg.Error) -> bool:
    """Whether the server was reached and rejected the role, the password or the database."""
    text = str(error)
    if error.sqlstate is not None:
        return error.sqlstate.startswith(("28", "3D", "42"))
    refused = "FATAL:" in text or "no password supplied" in text or "SSL" in text
    return refused and not any(passing in text for passing in PASSING)


def _in_a_line(error: psycopg.Error) -> str:
    """Return the error on one line, for each of several hosts. Never contains a password."""
    text = str(error).strip()
    lines = OF_ONE_HOST.findall(text) or text.splitlines()[:1]
    return "; ".join(dict.fromkeys(lines)) or type(error).__name__
