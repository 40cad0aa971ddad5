"""Health request to a server: does it answer, and with which version and time."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from cryostore.client.connection import HttpTransport
from cryostore.client.settings import ClientSettings
from cryostore.client.transport import Endpoint
from cryostore.core.time import SECOND_MS, Clock
from cryostore.wire import sigv4
from cryostore.wire.message import Request, Response

HEALTH_PATH = "/-/health"


class Health(NamedTuple):
    """The answer of a server. `is_cryostore` is False if something else answered."""

    status: int
    is_cryostore: bool
    version: str
    """Empty where the server does not tell it."""
    time_ms: int | None
    """The server's clock, in whole seconds; None where the server does not tell it."""


def ask_health(settings: ClientSettings, *, clock: Clock) -> Health:
    """Ask the server of these settings. Raises ConnectionFailedError, ConfigurationError."""
    endpoint = Endpoint.parse(settings.endpoint_url)
    transport = HttpTransport(endpoint, ca_bundle=settings.ca_bundle)
    request = Request("GET", HEALTH_PATH, "", [("host", endpoint.authority)])
    signed = sigv4.sign(request, settings.credentials, region=settings.region, service="backup-storage", now_ms=clock())
    try:
        answer = transport.send(signed)  # a server states its version only for signed requests
        return health_of(answer if answer.status == 200 else transport.send(request))
    finally:
        transport.close()


def health_of(answer: Response) -> Health:
    """Read an answer to the health request, whatever sent it."""
    try:
        document = json.loads(bytes(answer.body.data))
        is_cryostore, version = document["status"] is not None, str(document.get("version") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        is_cryostore, version = False, ""
    try:
        time_ms = round(parsedate_to_datetime(answer.header("date") or "").timestamp() * SECOND_MS)
    except (TypeError, ValueError):
        time_ms = None
    return Health(answer.status, is_cryostore, version, time_ms)
