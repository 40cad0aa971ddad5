"""The path of every request through the server, as one sequence: `Application._answer`.

    request id -> health -> signature head -> secret -> route -> signature -> head -> body, within a memory budget
        -> in a thread of the pool: payload hash, checksums, operation, backend, response -> answer -> log line

Signature failures come before every other check. Where the body's hash was signed but not sent, the signature can be
verified only with the body; until then every other failure is held back, and the body gets the memory and the time of
unverified senders (`body.UnverifiedBodies`).
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
from cryostore.server.http.exchange import Receive, Scope, Send
from cryostore.server.monitoring import failure
from cryostore.server.monitoring.failure import Failures
from cryostore.server.monitoring.log import Log
from cryostore.server.monitoring.metrics import private_meter
from cryostore.server.requests import body
from cryostore.server.requests.access_keys import ACCESS_KEY_CHARACTERS_MAX, SecretLookup
from cryostore.server.requests.body import BodyBudget, UnverifiedBodies, sender_group
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
"""How much of a UUID starts each request id; a counter follows. Reading randomness each time would release the GIL."""
READS = frozenset(
    name for name, one in OPERATIONS.items() if any(isinstance(member.binding, Body) for member in one.output_members)
)
"""Operations whose answer contains stored bytes."""
HASHED_HERE_BYTES_MAX = 16 * KIB
"""Larger bodies are hashed in the thread pool."""
HASH_PIECE_BYTES = 2047
READ_BYTES = 4 * MIB
"""The memory that a read is assumed to need until its size is known."""


@dataclass(slots=True)
class RequestRecord:
    """What is known of one request: for its log line, its errors, and its share of the memory budget."""

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
    """A request after the checks of its head. `head` is an error only while the signature is not verified yet."""

    request: Request
    signature: sigv4.Signature
    secret: str
    head: Head | ModelError
    covered: str | None
    """The signed hash of the body, or UNSIGNED-PAYLOAD; None while the signature is not verified yet."""


class Application:
    """The ASGI application of one worker. With `region`, signatures for other regions are refused."""

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
        """Answer one request, even if the client misbehaves or the backend fails."""
        record = RequestRecord(f"{self._id_prefix}{next(self._numbers):012X}", monotonic())
        try:
            try:
                response = await self._answer(scope, receive, record)
            except Exception as error:  # noqa: BLE001 - every failure has an answer and a log line
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
        """Do all checks that need no byte of the body."""
        signature, secret = await self._identify(request, scope, record)
        found = _routed(request)
        if isinstance(found, Route):
            record.operation, record.api = found.declaration.name, found.declaration.api
        nothing = Payload() if _declares_no_body(request) else None
        covered = self._verify(request, signature, secret, found, nothing)
        head = self._decoded(request, signature, found)
        if isinstance(head, ModelError) and covered is not None:
            raise head
        return AdmittedRequest(request, signature, secret, head, covered)

    async def _identify(self, request: Request, scope: Scope, record: RequestRecord) -> tuple[sigv4.Signature, str]:
        """Return the signature that a request carries, and the secret to verify it with."""
        signature = sigv4.read_signature(request)
        record.access_key_id = signature.access_key_id[:ACCESS_KEY_CHARACTERS_MAX]
        secret = await self._secrets.secret(signature.access_key_id, sender_group(scope.get("client")))
        if secret is None:
            raise UnrecognizedClientException("the access key is unknown or disabled")
        return signature, secret

    def _body_bounds(self, admitted: AdmittedRequest, record: RequestRecord) -> tuple[str, int, int | None]:
        """Return the API's signing name, the limit of the body in bytes, and its declared length (None: chunked)."""
        head = admitted.head
        signing_name = record.api.value if record.api else admitted.signature.service
        bytes_max = head.body_bytes_max if isinstance(head, Head) else self._limits.request_document_bytes_max
        declared = body.declared_bytes(admitted.request, signing_name)
        if declared is not None and declared > bytes_max:
            raise body.too_long(signing_name, bytes_max)
        return signing_name, bytes_max, declared

    async def _receive(self, admitted: AdmittedRequest, receive: Receive, record: RequestRecord) -> Payload:
        """Return the body of a verified sender, after waiting for memory."""
        signing_name, bytes_max, declared = self._body_bounds(admitted, record)
        wanted = self._wanted_bytes(admitted.head, bytes_max if declared is None else declared, record)
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
        """Return the body of a sender whose signature needs the body, and the request with the signed hash."""
        signing_name, bytes_max, declared = self._body_bounds(admitted, record)
        scope["piecewise"] = True
        reservation = self._unverified.reserve(scope.get("client"))
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
            record.held_bytes = await self._budget.acquire(self._wanted_bytes(admitted.head, len(data), record))
        finally:
            reservation.release()
        return replace(admitted, covered=covered), payload

    def _wanted_bytes(self, head: Head | ModelError, body_bytes: int, record: RequestRecord) -> int:
        """Return how much of the budget a request with a body of this length needs."""
        wanted = body_bytes + (head.blob_bytes_max(body_bytes) if isinstance(head, Head) else 0)
        return wanted + READ_BYTES if record.operation in READS else wanted

    def _carry_out(self, admitted: AdmittedRequest, payload: Payload, scope: Scope) -> Response:
        """Do everything that takes time or blocks; runs in a thread of the pool."""
        request, signature, head = admitted.request, admitted.signature, admitted.head
        assert isinstance(head, Head)
        assert admitted.covered is not None
        sigv4.verify_payload(signature, head.declaration, payload)
        integrity.check_headers(request, head.plan.signing_name, payload)
        if _is_exposed(scope):
            integrity.require_integrity(request, signature, admitted.covered, head, payload)
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
        """Answer the health check. Only signed requests learn the version."""
        answer = {"status": "ok"}
        if request.header("authorization") is not None:
            signature, secret = await self._identify(request, scope, record)
            self._verify(request, signature, secret, UnknownOperationException(""), Payload())
            answer["version"] = __version__
        headers = [("content-type", "application/json"), ("cache-control", "no-store")]
        return Response(200, headers, Payload(msgspec.json.encode(answer)))

    def _decoded(self, request: Request, signature: sigv4.Signature, found: Route | ModelError) -> Head | ModelError:
        if isinstance(found, ModelError):
            return found
        content_type = request.header("content-type") if "content-type" in signature.signed_headers else None
        try:
            return wire_request.decode_head(found, request, self._limits, content_type=content_type)
        except ModelError as error:
            return error

    def _hold(self, more_bytes: int, record: RequestRecord) -> None:
        """Count bytes that are in memory already; they are given back once the answer is written."""
        if more_bytes > 0:
            self._budget.take(more_bytes)
            record.held_bytes += more_bytes

    def _refusal(self, error: Exception, record: RequestRecord) -> Response:
        answer = failure.api_error(error)
        record.error = type(answer).__name__
        cause = failure.logged_cause(error)
        if cause is not None:
            self._failures.failure("failure", cause, request_id=record.request_id, operation=record.operation)
        return wire_error.encode(answer, record.api, record.request_id)

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
    """Return the SHA-256 of a small body, hashed in pieces for which hashlib does not release the GIL.

    Releasing it and getting it back amid a pool of threads costs many times more than hashing these few bytes.
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


def _declares_no_body(request: Request) -> bool:
    """Whether the head declares that no body follows."""
    return request.header("transfer-encoding") is None and request.header("content-length") in (None, "0")


def _is_exposed(scope: Scope) -> bool:
    """Whether a request came unencrypted over a network, where others may have altered it."""
    server = scope.get("server")
    return server is not None and scope.get("scheme") != "https" and not is_loopback(str(server[0]))


def _ignore() -> None:
    """Do nothing: a connection without `verified` in its scope does not need to know."""


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
