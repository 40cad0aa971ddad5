"""What `cryo doctor` looks at before it talks to a server: address, credentials, certificate, clock."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryostore.cli.doctor.diagnosis import Diagnoses, Diagnosis, error, failed, ok, warning
from cryostore.core.errors import CryostoreError
from cryostore.core.time import SECOND_MS, Clock, wall_clock

if TYPE_CHECKING:
    from cryostore.client.settings import Settings
    from cryostore.wire.message import Response

HEALTH_PATH = "/-/health"
LOCAL = ("127.", "localhost", "::1")
SKEW_SECONDS_NOTED = 60
SKEW_SECONDS_MAX = 15 * 60
"""Signatures that are further off are refused (control plane 2.1)."""


def server(endpoint_url: str | None, *, now: Clock = wall_clock) -> Diagnoses:
    """Everything about the way to the server. Ends early where the rest could not be said."""
    from cryostore.client.settings import resolve

    try:
        settings = resolve(os.environ, endpoint_url=endpoint_url)
    except CryostoreError as problem:
        yield failed("settings", problem, "say --endpoint-url and set AWS_SHARED_CREDENTIALS_FILE")
        return
    yield _access_key(settings)
    yield from _credentials_file()
    try:
        answer = _health(settings)
    except CryostoreError as problem:
        yield failed("endpoint", problem, "is the server running, and is this its address?")
        return
    yield _endpoint(settings.endpoint_url, answer)
    yield _clock(answer, now())
    yield _way(settings.endpoint_url)


def _access_key(settings: Settings) -> Diagnosis:
    found = f"access key {settings.credentials.access_key_id} from {settings.credentials_source}"
    if settings.credentials_unused:
        return warning(
            "credentials",
            f"{found}; it overrides the one in {settings.credentials_unused}",
            "if it is not this server's: unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN",
        )
    return ok("credentials", found)


def _health(settings: Settings) -> Response:
    from cryostore.client.connection import HttpTransport
    from cryostore.client.transport import Endpoint
    from cryostore.wire import sigv4
    from cryostore.wire.message import Request

    endpoint = Endpoint.parse(settings.endpoint_url)
    transport = HttpTransport(endpoint, ca_bundle=settings.ca_bundle)
    request = Request("GET", HEALTH_PATH, "", [("host", endpoint.authority)])
    signed = sigv4.sign(
        request, settings.credentials, region=settings.region, service="backup-storage", now_ms=wall_clock()
    )
    try:
        answer = transport.send(signed)  # the version is for callers who sign
        return answer if answer.status == 200 else transport.send(request)  # why it refuses them is told later
    finally:
        transport.close()


def _endpoint(url: str, answer: Response) -> Diagnosis:
    import json

    from cryostore import __version__

    try:
        told = json.loads(bytes(answer.body.data))
        version = told.get("version", "" if told["status"] == "ok" else None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return warning(
            "endpoint", f"{url} answers, but not as Cryostore does (status {answer.status})", "check the address"
        )
    if not version:
        return ok("endpoint", f"{url} answers as Cryostore does")
    if version != __version__:
        return warning("endpoint", f"{url} is Cryostore {version}, this is {__version__}", "upgrade the older one")
    return ok("endpoint", f"{url} is Cryostore {version}")


def _clock(answer: Response, now_ms: int) -> Diagnosis:
    from email.utils import parsedate_to_datetime

    try:
        theirs = parsedate_to_datetime(answer.header("date") or "")
    except (TypeError, ValueError):
        return warning("clock", "the server does not say what time it is", "compare the clocks by hand")
    off = round(now_ms / SECOND_MS - theirs.timestamp())
    found = f"this machine is {abs(off)} s {'ahead of' if off > 0 else 'behind'} the server"
    advice = "let both machines set their clocks by NTP"
    if abs(off) > SKEW_SECONDS_MAX:
        return error("clock", f"{found}: requests are refused", advice)
    if abs(off) > SKEW_SECONDS_NOTED:
        return warning("clock", found, advice)
    return ok("clock", "the same as the server's, within a minute")


def _way(url: str) -> Diagnosis:
    host = url.partition("://")[2].strip("[")
    if url.startswith("https://"):
        return ok("connection", "encrypted (TLS)")
    if host.startswith(LOCAL):
        return ok("connection", "within this machine")
    return warning(
        "connection",
        "not encrypted: who can listen can read what is backed up",
        "use https, or a tunnel, or encrypt before sending with --key",
    )


def _credentials_file() -> Diagnoses:
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")
    try:
        path = path.expanduser()
        mode = path.stat().st_mode & 0o777
    except (OSError, RuntimeError):  # it is not there, or this user has no home
        return
    if mode & 0o077:
        yield warning("credentials", f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
