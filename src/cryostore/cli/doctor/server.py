"""Checks of the connection to a server: credentials, address, version, clock, encryption."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryostore.core.diagnosis import Diagnoses, Diagnosis, error, failed, ok, warning
from cryostore.core.errors import CryostoreError
from cryostore.core.time import SECOND_MS, Clock, wall_clock

if TYPE_CHECKING:
    from cryostore.client.health import Health
    from cryostore.client.settings import ClientSettings

LOCAL_HOSTS = ("127.", "localhost", "::1")
SKEW_SECONDS_NOTED = 60
SKEW_SECONDS_MAX = 15 * 60
"""The server refuses signatures whose time is further off (control plane 2.1)."""


def check_server(endpoint_url: str | None, *, now: Clock = wall_clock) -> Diagnoses:
    """Check the connection to the server; ends early where later checks could not work."""
    from cryostore.client.health import ask_health
    from cryostore.client.settings import resolve

    try:
        settings = resolve(os.environ, endpoint_url=endpoint_url)
    except CryostoreError as problem:
        yield failed("settings", problem, "give --endpoint-url, and set AWS_SHARED_CREDENTIALS_FILE")
        return
    yield _access_key(settings)
    yield from _credentials_file()
    try:
        health = ask_health(settings, clock=now)
    except CryostoreError as problem:
        yield failed("endpoint", problem, "is the server running, and is this its address?")
        return
    yield _endpoint(settings.endpoint_url, health)
    yield _clock(health, now())
    yield _encryption(settings.endpoint_url)


def _access_key(settings: ClientSettings) -> Diagnosis:
    found = f"access key {settings.credentials.access_key_id} from {settings.credentials_source}"
    if settings.credentials_unused:
        return warning(
            "credentials",
            f"{found}; it overrides the one in {settings.credentials_unused}",
            "if it is not this server's: unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN",
        )
    return ok("credentials", found)


def _endpoint(url: str, health: Health) -> Diagnosis:
    from cryostore import __version__

    if not health.is_cryostore:
        found = f"{url} answers, but not as Cryostore does (status {health.status})"
        return warning("endpoint", found, "check the address")
    if not health.version:
        return ok("endpoint", f"{url} answers as Cryostore does")
    if health.version != __version__:
        found = f"{url} is Cryostore {health.version}, this is {__version__}"
        return warning("endpoint", found, "upgrade the older one")
    return ok("endpoint", f"{url} is Cryostore {health.version}")


def _clock(health: Health, now_ms: int) -> Diagnosis:
    if health.time_ms is None:
        return warning("clock", "the server does not tell its time", "compare the clocks by hand")
    off = round((now_ms - health.time_ms) / SECOND_MS)
    found = f"this machine is {abs(off)} s {'ahead of' if off > 0 else 'behind'} the server"
    advice = "synchronize the clocks of both machines with NTP"
    if abs(off) > SKEW_SECONDS_MAX:
        return error("clock", f"{found}: requests are refused", advice)
    if abs(off) > SKEW_SECONDS_NOTED:
        return warning("clock", found, advice)
    return ok("clock", "agrees with the server's within a minute")


def _encryption(url: str) -> Diagnosis:
    host = url.partition("://")[2].strip("[")
    if url.startswith("https://"):
        return ok("connection", "encrypted (TLS)")
    if host.startswith(LOCAL_HOSTS):
        return ok("connection", "within this machine")
    return warning(
        "connection",
        "not encrypted: others on the network can read the backups",
        "use https or a tunnel, or encrypt on this machine with --key",
    )


def _credentials_file() -> Diagnoses:
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")
    try:
        path = path.expanduser()
        mode = path.stat().st_mode & 0o777
    except (OSError, RuntimeError):  # it does not exist, or this user has no home
        return
    if mode & 0o077:
        yield warning("credentials", f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
