"""The path of every request, as one sequence: `Application._answer`.

    request id -> health -> signature head -> secret -> route -> signature -> head -> body, within a memory budget
        -> in a thread of the pool: payload hash, checksums, operation, service, response -> answer -> log line

Signature failures come before anything else is looked at. Where the body's hash was signed but not sent, the signature
can only be checked once the body is here; until then every other failure is held back, and the body has to make do
with what senders that nobody knows may have (`unverified`).
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, replace
from time import monotonic

import msgspec

from cryostore import __version__
from cryostore.core.digest import Buffer, Payload
from cryostore.core.ids import NewId
from cryostore.core.limits import KIB, MIB, Limits
from cryostore.core.time import Clock
from cryostore.model import OPERATIONS
from cryostore.model.errors import ModelError, UnknownOperationException, UnrecognizedClientException
from cryostore.model.operation import Api, Body
from cryostore.options.configuration import is_loopback
from cryostore.server.backend import Backend
from cryostore.server.http import body
from cryostore.server.http.exchange import Receive, Scope, Send
from cryostore.server.monitoring import failure
from cryostore.server.monitoring.failure import Failures
from cryostore.server.monitoring.log import Log
from cryostore.server.monitoring.metrics import private_meter
from cryostore.server.requests.access_keys import ACCESS_KEY_CHARACTERS_MAX, SecretLookup
from cryostore.server.requests.body_budget import BodyBudget
from cryostore.server.requests.unverified_bodies import UnverifiedBodies, sender_group
from cryostore.server.thread_pool import ThreadPool
from cryostore.wire import error as wire_error
from cryostore.wire import integrity, sigv4
from cryostore.wire import request as wire_request
from cryostore.wire import response as wire_response
from cryostore.wire.message import Request, Response
from cryostore.wire.request import Head
from cryostore.wire.route import Route, match

HEALTH_PATH = "/-/health"
REQUEST_ID_HEADER = "x-amzn-requestid"
ID_PREFIX_CHARACTERS = 24
"""Of a UUID: the rest of a request's id is counted. Asking for randomness each time would let go of the interpreter."""
READS = frozenset(
    name for name, one in OPERATIONS.items() if any(isinstance(member.binding, Body) for member in one.output_members)
)
"""The operations that answer with stored bytes."""
HASHED_HERE_BYTES_MAX = 16 * KIB
"""Larger bodies are hashed in the pool, beside the event loop."""
HASH_PIECE_BYTES = 2047
READ_BYTES = 4 * MIB
"""What a read is taken to need before its size is known."""


@dataclass(slots=True)
class RequestRecord:
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
class AdmittedRequest:
    """A request whose head was looked at. `head` is an error only if the signature must be checked first."""

    request: Request
    signature: sigv4.Signature
    secret: str
    head: Head | ModelError
    covered: str | None
    """The hash of the body that was signed, or that there is none; None: the signature is not verified yet."""


class Application:
    """The ASGI application of one worker. `region` None: any region may be signed for."""

    def __init__(
        self,
        backend: Backend,
        *,
        pool: ThreadPool,
        budget: BodyBudget,
        log: Log,
        clock: Clock,
        new_id: NewId,
        limits: Limits,
        region: str | None = None,
        failures: Failures | None = None,
        unverified: UnverifiedBodies | None = None,
    ) -> None:
        self._backend = backend
        self._secrets = SecretLookup(backend.access, pool)
        self._unverified = unverified or UnverifiedBodies()
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
        record = RequestRecord(f"{self._id_prefix}{next(self._numbers):012X}", monotonic())
        try:
            try:
                response = await self._answer(scope, receive, record)
            except Exception as error:  # noqa: BLE001 - whatever happens, the client gets an answer and the log a line
                response = self._refusal(error, record)
            await _send(send, response, record.request_id)
            self._log_line(response, record)
            bytes_out = len(response.body)
            self._meter.request(
                record.operation, response.status, monotonic() - record.started, record.bytes_in, bytes_out
            )
        finally:
            if record.held_bytes:
                self._budget.release(record.held_bytes)

    async def _answer(self, scope: Scope, receive: Receive, record: RequestRecord) -> Response:
        request = _request(scope)
        if request.path == HEALTH_PATH and request.method in ("GET", "HEAD"):
            return await self._health(request, scope, record)
        admitted = await self._admit(request, scope, record)
        if admitted.covered is not None:
            scope.get("verified", _ignore)()
            payload = await self._receive(admitted, receive, record)
        else:
            admitted, payload = await self._receive_unverified(admitted, scope, receive, record)
        if isinstance(admitted.head, Head):
            self._hold(admitted.head.values_bytes_max(payload), record)
        response = await self._pool.run(self._carry_out, admitted, payload, scope)
        self._hold(len(response.body) - READ_BYTES, record)
        return response

    async def _admit(self, request: Request, scope: Scope, record: RequestRecord) -> AdmittedRequest:
        """All that can be checked before a byte of the body is read."""
        signature, secret = await self._known(request, scope, record)
        found = _routed(request)
        if isinstance(found, Route):
            record.operation, record.api = found.declaration.name, found.declaration.api
        nothing = Payload() if _says_empty(request) else None
        covered = self._verify(request, signature, secret, found, nothing)
        head = self._decoded(request, signature, found)
        if isinstance(head, ModelError) and covered is not None:
            raise head
        return AdmittedRequest(request, signature, secret, head, covered)

    async def _known(self, request: Request, scope: Scope, record: RequestRecord) -> tuple[sigv4.Signature, str]:
        """What a request says of its signature, and the secret that it should have been made with."""
        signature = sigv4.read_signature(request)
        record.access_key_id = signature.access_key_id[:ACCESS_KEY_CHARACTERS_MAX]
        secret = await self._secrets.secret(signature.access_key_id, sender_group(scope.get("client")))
        if secret is None:
            raise UnrecognizedClientException("the access key is unknown or disabled")
        return signature, secret

    def _body_bounds(self, admitted: AdmittedRequest, record: RequestRecord) -> tuple[str, int, int | None]:
        """The API to answer by, how long the body may be and, if it is said, is."""
        head = admitted.head
        signing_name = record.api.value if record.api else admitted.signature.service
        bytes_max = head.body_bytes_max if isinstance(head, Head) else self._limits.request_document_bytes_max
        declared = body.declared_bytes(admitted.request, signing_name)
        if declared is not None and declared > bytes_max:
            raise body.too_long(signing_name, bytes_max)
        return signing_name, bytes_max, declared

    async def _receive(self, admitted: AdmittedRequest, receive: Receive, record: RequestRecord) -> Payload:
        """The body of a sender who is known, once there is room for it."""
        signing_name, bytes_max, declared = self._body_bounds(admitted, record)
        wanted = self._wanted(admitted.head, bytes_max if declared is None else declared, record)
        if wanted:
            record.held_bytes = await self._budget.acquire(wanted)
        if declared == 0:
            return Payload()
        data = await body.read(receive, signing_name, bytes_max)
        record.bytes_in = len(data)
        return Payload(data, sha256=_digest(data)) if len(data) <= HASHED_HERE_BYTES_MAX else Payload(data)

    async def _receive_unverified(
        self, admitted: AdmittedRequest, scope: Scope, receive: Receive, record: RequestRecord
    ) -> tuple[AdmittedRequest, Payload]:
        """The body of a sender who may be anybody until its signature is verified with it."""
        signing_name, bytes_max, declared = self._body_bounds(admitted, record)
        scope["piecewise"] = True
        reservation = self._unverified.reservation(scope.get("client"))
        try:
            data = await reservation.read(receive, signing_name, bytes_max, declared)
            record.bytes_in = len(data)
            payload = Payload(data)
            if len(data) <= HASHED_HERE_BYTES_MAX:
                payload = Payload(data, sha256=_digest(data))
                covered = self._verify_late(admitted, payload)
            else:
                covered = await self._pool.run(self._verify_late, admitted, payload)
            scope.get("verified", _ignore)()
            if isinstance(admitted.head, ModelError):
                raise admitted.head
            record.held_bytes = await self._budget.acquire(self._wanted(admitted.head, len(data), record))
        finally:
            reservation.release()
        return replace(admitted, covered=covered), payload

    def _wanted(self, head: Head | ModelError, body_bytes: int, record: RequestRecord) -> int:
        """How much of the budget a request needs whose body is so long."""
        wanted = body_bytes + (head.blob_bytes_max(body_bytes) if isinstance(head, Head) else 0)
        return wanted + READ_BYTES if record.operation in READS else wanted

    def _carry_out(self, admitted: AdmittedRequest, payload: Payload, scope: Scope) -> Response:
        """All that takes its time or blocks; runs in a thread of the pool."""
        request, signature, head = admitted.request, admitted.signature, admitted.head
        assert isinstance(head, Head)
        assert admitted.covered is not None
        sigv4.verify_payload(signature, head.declaration, payload)
        integrity.check_headers(request, head.plan.signing_name, payload)
        if _is_open(scope):
            integrity.check_covered(request, signature, admitted.covered, head, payload)
        operation = head.finish(payload)
        caller = self._backend.access.caller(signature.access_key_id)
        if wire_response.accepts_zstd(request.header("accept-encoding")):
            caller = replace(caller, takes_zstd=True)
        output = self._backend.call(operation, caller)
        return wire_response.encode(head.declaration, output)

    def _verify_late(self, admitted: AdmittedRequest, payload: Payload) -> str | None:
        return self._verify(admitted.request, admitted.signature, admitted.secret, admitted.head, payload)

    def _verify(
        self,
        request: Request,
        signature: sigv4.Signature,
        secret: str,
        found: Route | Head | ModelError,
        payload: Payload | None = None,
    ) -> str | None:
        return sigv4.verify(
            request,
            signature,
            secret,
            now_ms=self._clock(),
            region=self._region,
            declaration=None if isinstance(found, ModelError) else found.declaration,
            body=payload,
        )

    async def _health(self, request: Request, scope: Scope, record: RequestRecord) -> Response:
        """That requests are answered; the version is for callers who sign."""
        told = {"status": "ok"}
        if request.header("authorization") is not None:
            signature, secret = await self._known(request, scope, record)
            self._verify(request, signature, secret, UnknownOperationException(""), Payload())
            told["version"] = __version__
        headers = [("content-type", "application/json"), ("cache-control", "no-store")]
        return Response(200, headers, Payload(msgspec.json.encode(told)))

    def _decoded(self, request: Request, signature: sigv4.Signature, found: Route | ModelError) -> Head | ModelError:
        if isinstance(found, ModelError):
            return found
        content_type = request.header("content-type") if "content-type" in signature.signed_headers else None
        try:
            return wire_request.decode_head(found, request, self._limits, content_type=content_type)
        except ModelError as error:
            return error

    def _hold(self, more_bytes: int, record: RequestRecord) -> None:
        """Count bytes that turned out to be in memory; they are given back when the answer is written."""
        if more_bytes > 0:
            self._budget.take(more_bytes)
            record.held_bytes += more_bytes

    def _refusal(self, error: Exception, record: RequestRecord) -> Response:
        told = failure.modelled(error)
        record.error = type(told).__name__
        cause = failure.cause(error)
        if cause is not None:
            self._failures.failure("failure", cause, request_id=record.request_id, operation=record.operation)
        return wire_error.encode(told, record.api, record.request_id)

    def _log_line(self, response: Response, record: RequestRecord) -> None:
        self._log.write(
            "info",
            "request",
            request_id=record.request_id,
            operation=record.operation,
            status=response.status,
            error=record.error,
            duration_ms=round((monotonic() - record.started) * 1000, 3),
            bytes_in=record.bytes_in,
            bytes_out=len(response.body),
            access_key_id=record.access_key_id,
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


def _says_empty(request: Request) -> bool:
    """Whether the head says that no body follows."""
    return request.header("transfer-encoding") is None and request.header("content-length") in (None, "0")


def _is_open(scope: Scope) -> bool:
    """Whether others than this machine may have had the bytes of a request in their hands, and nothing encrypts."""
    server = scope.get("server")
    return server is not None and scope.get("scheme") != "https" and not is_loopback(str(server[0]))


def _ignore() -> None:
    """For who does not want to know that a sender is known now."""


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
