"""The path of every request, as one sequence: `Application._answer`.

    request id -> health -> signature head -> route -> signature -> head -> body, within the memory budget
        -> in a thread of the pool: late signature, payload hash, operation, service, response -> answer -> log line

Signature failures come before anything else is looked at. Where the body's hash was signed but not sent, the signature
can only be checked once the body is here; until then every other failure is held back.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol

import msgspec

from cryostore import __version__
from cryostore.core.digest import Buffer, Payload
from cryostore.core.ids import NewId
from cryostore.core.limits import KIB, MIB, Limits
from cryostore.core.time import Clock
from cryostore.model import OPERATIONS
from cryostore.model.errors import ModelError, UnrecognizedClientException
from cryostore.model.operation import Api, Body, Operation
from cryostore.server import body, failure
from cryostore.server.budget import Budget
from cryostore.server.exchange import Receive, Scope, Send
from cryostore.server.failure import Failures
from cryostore.server.log import Log
from cryostore.server.metrics import Meter, private_meter
from cryostore.server.pool import Pool
from cryostore.wire import error as wire_error
from cryostore.wire import request as wire_request
from cryostore.wire import response as wire_response
from cryostore.wire import sigv4
from cryostore.wire.message import Request, Response
from cryostore.wire.request import Head
from cryostore.wire.route import Route, match

HEALTH_PATH = "/-/health"
REQUEST_ID_HEADER = "x-amzn-requestid"
ID_PREFIX_CHARACTERS = 24
"""Of a UUID: the rest of a request's id is counted. Asking for randomness each time would let go of the interpreter."""
READS = frozenset(
    name for name, one in OPERATIONS.items() if any(isinstance(member.place, Body) for member in one.output_members)
)
"""The operations that answer with stored bytes."""
HASHED_HERE_BYTES_MAX = 16 * KIB
"""Larger bodies are hashed in the pool, beside the event loop."""
HASH_PIECE_BYTES = 2047
READ_BYTES = 4 * MIB
"""What a read is taken to need before its size is known."""
ACCESS_KEY_CHARACTERS_LOGGED_MAX = 128
"""How much of what somebody says to be an access key goes into the log: as much as one can have."""


class Access(Protocol):
    """Who may call."""

    def secret(self, access_key_id: str) -> str | None:
        """The secret of an access key, None if it is unknown or disabled. Quick: answered on the event loop."""
        ...

    def caller(self, access_key_id: str) -> Any:
        """Who an access key stands for."""
        ...


class Service(Protocol):
    """What the server needs of the service."""

    @property
    def access(self) -> Access:
        """Who may call."""
        ...

    @property
    def clock(self) -> Clock | None:
        """The time by which signatures are judged, where it is not this machine's. Quick."""
        ...

    def call(self, operation: Operation[Any], caller: Any) -> Any:
        """Carry out an operation. Thread safe; may block."""
        ...

    @property
    def takes_writes(self) -> bool:
        """Whether new data is taken now, or refused because the disk is full. Quick."""
        ...

    def publish(self, meter: Meter) -> None:
        """Write down on a meter what the service has counted. Quick."""
        ...

    def recover(self) -> None:
        """Find out whether trouble with the disk is over. Quick if there is none; safe at any time."""
        ...

    def maintain(self) -> None:
        """Periodic duties. Safe at any time, from any process."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


@dataclass(slots=True)
class Entry:
    """What is remembered of one request: for its log line, its errors, and its share of the memory budget."""

    request_id: str
    started: float
    operation: str | None = None
    api: Api | None = None
    access_key_id: str | None = None
    error: str | None = None
    bytes_in: int = 0
    held_bytes: int = 0


@dataclass(slots=True, frozen=True)
class Admitted:
    """A request whose head was looked at. `head` is an error only if the signature must be checked first."""

    request: Request
    signature: sigv4.Signature
    secret: str
    head: Head | ModelError


class Application:
    """The ASGI application of one worker. `region` None: any region may be signed for."""

    def __init__(
        self,
        service: Service,
        *,
        pool: Pool,
        budget: Budget,
        log: Log,
        clock: Clock,
        new_id: NewId,
        limits: Limits,
        region: str | None = None,
        failures: Failures | None = None,
    ) -> None:
        self._service = service
        self._failures = failures or Failures(log, private_meter())
        self._meter = self._failures.meter
        self._pool = pool
        self._budget = budget
        self._log = log
        self._clock = clock
        self._id_prefix = new_id()[:ID_PREFIX_CHARACTERS]
        self._numbers = itertools.count(1)
        self._limits = limits
        self._region = region

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever a client does or the service fails at."""
        entry = Entry(f"{self._id_prefix}{next(self._numbers):012X}", monotonic())
        try:
            try:
                response = await self._answer(_request(scope), receive, entry)
            except Exception as error:  # noqa: BLE001 - whatever happens, the client gets an answer and the log a line
                response = self._refusal(error, entry)
            await _send(send, response, entry.request_id)
            self._log_line(response, entry)
            bytes_out = len(response.body)
            self._meter.request(
                entry.operation, response.status, monotonic() - entry.started, entry.bytes_in, bytes_out
            )
        finally:
            if entry.held_bytes:
                self._budget.release(entry.held_bytes)

    async def _answer(self, request: Request, receive: Receive, entry: Entry) -> Response:
        if request.path == HEALTH_PATH and request.method in ("GET", "HEAD"):
            return _health()
        admitted = self._admit(request, entry)
        payload = await self._receive(admitted, receive, entry)
        response = await self._pool.run(self._carry_out, admitted, payload)
        self._hold(len(response.body) - READ_BYTES, entry)
        return response

    def _admit(self, request: Request, entry: Entry) -> Admitted:
        """All that can be checked before a byte of the body is read."""
        signature = sigv4.read_signature(request)
        entry.access_key_id = signature.access_key_id[:ACCESS_KEY_CHARACTERS_LOGGED_MAX]
        secret = self._service.access.secret(signature.access_key_id)
        if secret is None:
            raise UnrecognizedClientException("the access key is unknown or disabled")
        found = _routed(request)
        if isinstance(found, Route):
            entry.operation, entry.api = found.declaration.name, found.declaration.api
        if not signature.needs_body:
            self._verify(request, signature, secret, found)
        head = self._decoded(request, found)
        if isinstance(head, ModelError) and not signature.needs_body:
            raise head
        return Admitted(request, signature, secret, head)

    async def _receive(self, admitted: Admitted, receive: Receive, entry: Entry) -> Payload:
        """The body, once there is room for it."""
        head = admitted.head
        signing_name = entry.api.value if entry.api else admitted.signature.service
        bytes_max = head.body_bytes_max if isinstance(head, Head) else self._limits.request_document_bytes_max
        declared = body.declared_bytes(admitted.request, signing_name)
        if declared is not None and declared > bytes_max:
            raise body.too_long(signing_name, bytes_max)
        wanted = bytes_max if declared is None else declared
        if entry.operation in READS:
            wanted += READ_BYTES
        if wanted:
            entry.held_bytes = await self._budget.acquire(wanted)
        if declared == 0:
            return Payload()
        data = await body.read(receive, signing_name, bytes_max)
        entry.bytes_in = len(data)
        return Payload(data, sha256=_digest(data)) if len(data) <= HASHED_HERE_BYTES_MAX else Payload(data)

    def _carry_out(self, admitted: Admitted, payload: Payload) -> Response:
        """All that takes its time or blocks; runs in a thread of the pool."""
        request, signature, head = admitted.request, admitted.signature, admitted.head
        if signature.needs_body:
            self._verify(request, signature, admitted.secret, head, payload)
        if isinstance(head, ModelError):
            raise head
        sigv4.verify_payload(signature, head.declaration, payload)
        operation = head.finish(payload)
        caller = self._service.access.caller(signature.access_key_id)
        if wire_response.accepts_zstd(request.header("accept-encoding")):
            caller = replace(caller, takes_zstd=True)
        output = self._service.call(operation, caller)
        return wire_response.encode(head.declaration, output)

    def _verify(
        self,
        request: Request,
        signature: sigv4.Signature,
        secret: str,
        found: Route | Head | ModelError,
        payload: Payload | None = None,
    ) -> None:
        sigv4.verify(
            request,
            signature,
            secret,
            now_ms=self._clock(),
            region=self._region,
            declaration=None if isinstance(found, ModelError) else found.declaration,
            body=payload,
        )

    def _decoded(self, request: Request, found: Route | ModelError) -> Head | ModelError:
        if isinstance(found, ModelError):
            return found
        try:
            return wire_request.decode_head(found, request, self._limits)
        except ModelError as error:
            return error

    def _hold(self, more_bytes: int, entry: Entry) -> None:
        """Count bytes that turned out to be in memory; they are given back when the answer is written."""
        if more_bytes > 0:
            self._budget.take(more_bytes)
            entry.held_bytes += more_bytes

    def _refusal(self, error: Exception, entry: Entry) -> Response:
        told = failure.modelled(error)
        entry.error = type(told).__name__
        cause = failure.cause(error)
        if cause is not None:
            self._failures.failure("failure", cause, request_id=entry.request_id, operation=entry.operation)
        return wire_error.encode(told, entry.api, entry.request_id)

    def _log_line(self, response: Response, entry: Entry) -> None:
        self._log.write(
            "info",
            "request",
            request_id=entry.request_id,
            operation=entry.operation,
            status=response.status,
            error=entry.error,
            duration_ms=round((monotonic() - entry.started) * 1000, 3),
            bytes_in=entry.bytes_in,
            bytes_out=len(response.body),
            access_key_id=entry.access_key_id,
        )


def _digest(data: Buffer) -> bytes:
    """The SHA-256 of a small body, in pieces for which hashlib does not let go of the interpreter.

    To let go and to get it back amid a pool of threads costs many times what hashing these few bytes does.
    """
    whole = hashlib.sha256()
    view = memoryview(data)
    for start in range(0, len(view), HASH_PIECE_BYTES):
        whole.update(view[start : start + HASH_PIECE_BYTES])
    return whole.digest()


def _request(scope: Scope) -> Request:
    return Request(
        scope["method"],
        scope["raw_path"].decode("latin-1"),
        scope["query_string"].decode("latin-1"),
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
    )


def _routed(request: Request) -> Route | ModelError:
    try:
        return match(request.method, request.path)
    except ModelError as error:
        return error


def _health() -> Response:
    document = msgspec.json.encode({"status": "ok", "version": __version__})
    return Response(200, [("content-type", "application/json"), ("cache-control", "no-store")], Payload(document))


async def _send(send: Send, response: Response, request_id: str) -> None:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers
        if name != REQUEST_ID_HEADER
    ]
    headers.append((REQUEST_ID_HEADER.encode(), request_id.encode()))
    if response.status != 204:
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body.data})
