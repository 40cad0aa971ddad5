"""Client of one server: encodes, signs, sends and retries requests, and decodes answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

import msgspec

from cryostore import __version__
from cryostore.client.retry import Retry
from cryostore.client.settings import ClientSettings
from cryostore.client.transport import Endpoint, HttpTransport, Timeouts, Transport
from cryostore.core.ids import NewId, random_id
from cryostore.core.interrupts import interruptible
from cryostore.core.time import SECOND_MS, Clock, wall_clock
from cryostore.model.errors import ModelError, missing_argument
from cryostore.model.operation import Label, Operation
from cryostore.wire import request as wire_request
from cryostore.wire import response as wire_response
from cryostore.wire import sigv4
from cryostore.wire.message import Request, Response

ACCEPT_ENCODING = ("accept-encoding", wire_response.ZSTD)
Out = TypeVar("Out")
HEALTH_PATH = "/-/health"


class Client:
    """A `Call` of both APIs over HTTP. Thread safe; each concurrent call has its own connection."""

    def __init__(
        self,
        endpoint_url: str,
        region: str,
        credentials: sigv4.Credentials,
        *,
        ca_bundle: str | None = None,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        transport: Transport | None = None,
        now: Clock = wall_clock,
        new_id: NewId = random_id,
    ) -> None:
        """`transport` replaces the transport over TCP; then `ca_bundle` and `timeouts` have no effect.

        Raises ConfigurationError for a malformed endpoint URL. Connects at the first call.
        """
        self.endpoint = Endpoint.parse(endpoint_url)
        self.region = region
        self._credentials = credentials
        self._retry = retry or Retry()
        self._transport = transport or HttpTransport(self.endpoint, timeouts=timeouts, ca_bundle=ca_bundle)
        self._now = now
        self._new_id = new_id

    @classmethod
    def of(cls, settings: ClientSettings, *, retry: Retry | None = None) -> Self:
        """Return a client with these settings."""
        return cls(
            settings.endpoint_url, settings.region, settings.credentials, ca_bundle=settings.ca_bundle, retry=retry
        )

    def call(self, operation: Operation[Out]) -> Out:
        """Send one operation and return its output.

        Raises the modelled error of the API if the server answers with one, and ConnectionFailedError without an
        answer, in both cases after the attempts of `Retry`. Adds absent idempotency tokens once, so that all attempts
        carry the same. May be repeated; `cryostore.client.retry` lists the possible effects.
        """
        declaration = operation.declaration
        operation = _with_tokens(operation, self._new_id)
        _check_labels(operation)
        unsigned_request = wire_request.encode(operation)
        payload_hash = None
        if self.endpoint.scheme == "https" and declaration.unsigned_payload:
            payload_hash = sigv4.UNSIGNED_PAYLOAD  # TLS protects the body; length and checksum are signed

        def attempt() -> Response:
            signed = self._signed(unsigned_request, declaration.api.value, payload_hash)
            signed.answer_bytes_max = wire_response.bytes_max(declaration)
            signed.headers.append(ACCEPT_ENCODING)  # not signed: a proxy may change it
            return self._transport.send(signed)

        with interruptible:
            response = self._retry.run(attempt)
        try:
            return cast("Out", wire_response.decode(declaration, response))
        except ModelError as error:
            error.add_note(f"{declaration.name}, request id {response.header('x-amzn-requestid')}")
            raise

    def close(self) -> None:
        """Close idle connections. A later call opens new ones."""
        self._transport.close()

    def cut_off(self, seconds: float) -> None:
        """Abort all calls in flight. Each step of a later call waits at most `seconds`."""
        self._transport.cut_off(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.endpoint}, region={self.region})"

    def _signed(self, request: Request, service: str, payload_hash: str | None) -> Request:
        # Each attempt has a signature of its own, because the date is part of it.
        own = [("host", self.endpoint.authority), ("user-agent", f"cryostore/{__version__}")]
        return sigv4.sign(
            Request(request.method, request.path, request.query, [*own, *request.headers], request.body),
            self._credentials,
            region=self.region,
            service=service,
            now_ms=self._now(),
            payload_hash=payload_hash,
        )


def _with_tokens(operation: Operation[Out], new_id: Callable[[], str]) -> Operation[Out]:
    absent = {
        member.attribute: new_id()
        for member in operation.declaration.members
        if member.idempotency_token and getattr(operation, member.attribute) is None
    }
    return msgspec.structs.replace(operation, **absent) if absent else operation


def _check_labels(operation: Operation[Any]) -> None:
    # An empty segment gives the path of another operation: DescribeBackupJob without an id would list all jobs.
    declaration = operation.declaration
    for member in declaration.at(Label):
        if getattr(operation, member.attribute) == "":
            raise missing_argument(declaration.api.value, member.name)


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
