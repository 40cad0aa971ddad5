"""The request pipeline in process: the order of the checks, the calls of the backend, and the answers."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, field

import pytest

from cryostore import __version__
from cryostore.core.digest import sha256
from cryostore.core.ids import counting_ids
from cryostore.core.limits import MIB, Limits
from cryostore.core.time import FrozenClock
from cryostore.model.operation import Api
from cryostore.server.monitoring.log import Log
from cryostore.server.requests.application import READ_BYTES, READS, Application
from cryostore.server.requests.body import BodyBudget
from cryostore.server.thread_pool import ThreadPool
from cryostore.wire.message import Request
from cryostore.wire.sigv4 import Credentials
from support.processes.fake_backend import CREDENTIALS, METADATA, TOKEN, FakeBackend
from support.requests.raw_http import Answer, put_object, signed

NOW_MS = 1_700_000_000_000
FIRST_ID = "00000000-0000-4000-8000-000000000001"


@dataclass
class Face:
    """An application on the fake backend, called without a network."""

    backend: FakeBackend
    pool: ThreadPool
    log: Log
    log_path: object
    clock: FrozenClock = field(default_factory=lambda: FrozenClock(NOW_MS))
    budget: BodyBudget = field(default_factory=lambda: BodyBudget(8 * MIB, wait_seconds_max=0.01))
    region: str | None = None
    asked_for_body: bool = False

    def application(self):
        return Application(
            self.backend,
            pool=self.pool,
            budget=self.budget,
            log=self.log,
            clock=self.clock,
            new_id=counting_ids(),
            limits=Limits(chunk_bytes_max=4 * MIB),
            region=self.region,
        )

    def answer(self, request: Request, *, declare: bool = True, body: bytes | None = None, **more_scope) -> Answer:
        """Send one request to an application of its own."""
        data = bytes(request.body.data) if body is None else body
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
        headers += [(b"content-length", b"%d" % len(data))] if declare else [(b"transfer-encoding", b"chunked")]
        scope = {
            "type": "http",
            "method": request.method,
            "raw_path": request.path.encode("latin-1"),
            "query_string": request.query.encode("latin-1"),
            "headers": headers,
            **more_scope,
        }
        sent = []

        async def receive():
            self.asked_for_body = True
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message):
            sent.append(message)

        async def scenario():
            await self.application()(scope, receive, send)

        self.pool._loop = None  # each request has an event loop of its own
        asyncio.run(scenario())
        start, end = sent
        headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        assert len(headers) == len(start["headers"])
        assert int(headers["content-length"]) == len(end["body"])
        return Answer(start["status"], headers, bytes(end["body"]))

    def lines(self):
        """The whole log; nothing is logged afterwards."""
        self.log.close()
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]


@pytest.fixture
def face(tmp_path):
    pool = ThreadPool(2)
    with (tmp_path / "log").open("wb") as file:
        log = Log(os.dup(file.fileno()), clock=FrozenClock(NOW_MS))
    yield Face(FakeBackend(tmp_path), pool, log, tmp_path / "log")
    pool.close(wait_seconds_max=10)
    log.close()
    os.close(log._descriptor)


def put(name, body=b"", *headers, **how):
    how.setdefault("now_ms", NOW_MS)
    return put_object(name, body, *headers, **how)


def list_vaults(**how):
    how.setdefault("now_ms", NOW_MS)
    return signed("GET", "/backup-vaults/", service="backup", **how)


def unsigned(request):
    return Request(request.method, request.path, request.query, [("host", "server")], request.body)


def with_signature_changed(request):
    headers = [
        (name, value[:-1] + ("0" if value[-1] != "0" else "1") if name == "authorization" else value)
        for name, value in request.headers
    ]
    return Request(request.method, request.path, request.query, headers, request.body)


def test_a_signed_request_reaches_the_service_as_its_operation(face):
    answer = face.answer(put("name", b"abc"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-amzn-requestid"] == FIRST_ID
    assert json.loads(answer.body)["InlineChunkChecksum"] == sha256(b"abc").hex()
    (operation,) = face.backend.calls
    assert (operation.backup_job_id, operation.object_name, operation.inline_chunk.data) == ("job-1", "name", b"abc")


UNKNOWN = Credentials("AKIAUNKNOWN000000000", "x")
WRONG = Credentials(CREDENTIALS.access_key_id, "x")
MINUTE_MS = 60_000

REFUSED = {
    "unsigned": (lambda send_hash: unsigned(put("n", b"abc")), 403, "MissingAuthenticationTokenException"),
    "malformed": (
        lambda send_hash: signed_with(("authorization", "AWS4-HMAC-SHA256 nonsense")),
        400,
        "IncompleteSignatureException",
    ),
    "unknown key": (
        lambda send_hash: put("n", b"abc", credentials=UNKNOWN, send_hash=send_hash),
        403,
        "UnrecognizedClientException",
    ),
    "wrong secret": (
        lambda send_hash: put("n", b"abc", credentials=WRONG, send_hash=send_hash),
        403,
        "InvalidSignatureException",
    ),
    "altered": (
        lambda send_hash: with_signature_changed(put("n", b"abc", send_hash=send_hash)),
        403,
        "InvalidSignatureException",
    ),
    "stale": (
        lambda send_hash: put("n", b"abc", now_ms=NOW_MS - 16 * MINUTE_MS, send_hash=send_hash),
        403,
        "InvalidSignatureException",
    ),
    "early": (
        lambda send_hash: put("n", b"abc", now_ms=NOW_MS + 16 * MINUTE_MS, send_hash=send_hash),
        403,
        "InvalidSignatureException",
    ),
    "of another service": (
        lambda send_hash: put("n", b"abc", service="backup", send_hash=send_hash),
        403,
        "InvalidSignatureException",
    ),
    "with a session token": (
        lambda send_hash: put(
            "n", b"abc", credentials=Credentials(CREDENTIALS.access_key_id, CREDENTIALS.secret_access_key, "session")
        ),
        403,
        None,
    ),
}


def signed_with(header):
    request = put("n", b"abc")
    headers = [header if name == header[0] else (name, value) for name, value in request.headers]
    return Request(request.method, request.path, request.query, headers, request.body)


@pytest.mark.parametrize("send_hash", [True, False], ids=["early check", "late check"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_request_of_an_unknown_sender_changes_nothing(face, case, send_hash):
    make, status, name = REFUSED[case]
    answer = face.answer(make(send_hash))
    assert answer.status == status
    assert name in (answer.error, None)
    assert face.backend.calls == []
    if send_hash:
        assert not face.asked_for_body


@pytest.mark.parametrize(
    "path",
    ["/", "/nowhere", "/-/other", "/backup-jobs/j/chunk/u/x", "/backup-jobs/j/object/%FF/put-object", "/%zz", "//"],
)
@pytest.mark.parametrize("send_hash", [True, False], ids=["early check", "late check"])
def test_a_wrong_signature_is_refused_before_anything_else(face, path, send_hash):
    unsigned_answer = face.answer(Request("PUT", path, "length=wrong", [("host", "server")]), body=b"")
    assert unsigned_answer.error == "MissingAuthenticationTokenException"
    request = signed("PUT", path, "length=wrong", credentials=WRONG, now_ms=NOW_MS, send_hash=send_hash)
    assert face.answer(request).error == "InvalidSignatureException"
    right = signed("PUT", path, "length=wrong", now_ms=NOW_MS, send_hash=send_hash)
    assert face.answer(right).error in {"UnknownOperationException", "IllegalArgumentException"}
    assert face.backend.calls == []


def test_a_signature_over_the_hash_of_the_body_is_checked_late(face):
    request = signed(
        "PUT", "/backup-jobs/job-1/object/n", "", body=b'{"ThrowOnDuplicate":true}', now_ms=NOW_MS, send_hash=False
    )
    assert face.answer(request, body=b'{"ThrowOnDuplicate":null}').error == "InvalidSignatureException"
    assert face.backend.calls == []
    assert face.answer(request).status == 200
    assert face.backend.calls[0].throw_on_duplicate is True


def test_a_body_with_another_hash_than_the_signed_one_is_refused(face):
    request = put("n", b"abc", payload_hash=sha256(b"abc").hex())
    assert face.answer(request, body=b"abd").error == "InvalidSignatureException"
    assert face.backend.calls == []
    assert face.answer(request).status == 200


def test_a_region_may_be_pinned(face):
    face.region = "eu-central-1"
    assert face.answer(put("n")).error == "InvalidSignatureException"
    face.region = "local-1"
    assert face.answer(put("n")).status == 200


def test_health_needs_nothing(face):
    for method in ("GET", "HEAD"):
        answer = face.answer(Request(method, "/-/health", "", []), body=b"")
        assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})
    assert face.answer(Request("PUT", "/-/health", "", []), body=b"").error == "MissingAuthenticationTokenException"


def test_health_tells_its_version_to_signed_requests_only(face):
    answer = face.answer(signed("GET", "/-/health", service="backup", now_ms=NOW_MS))
    assert json.loads(answer.body) == {"status": "ok", "version": __version__}
    wrong = signed("GET", "/-/health", service="backup", now_ms=NOW_MS, credentials=WRONG)
    assert face.answer(wrong).error == "InvalidSignatureException"


LINES = {
    "loopback": ({"scheme": "http", "server": ("127.0.0.1", 80)}, True),
    "loopback, IPv6": ({"scheme": "http", "server": ("::1", 80, 0, 0)}, True),
    "loopback, mapped": ({"scheme": "http", "server": ("::ffff:127.0.0.1", 80, 0, 0)}, True),
    "TLS": ({"scheme": "https", "server": ("192.0.2.1", 443)}, True),
    "open": ({"scheme": "http", "server": ("192.0.2.1", 80)}, False),
    "open, IPv6": ({"scheme": "http", "server": ("2001:db8::1", 80, 0, 0)}, False),
}


@pytest.mark.parametrize("line", LINES)
def test_an_unsigned_body_needs_a_checksum_where_it_may_be_altered(face, line):
    scope, taken = LINES[line]
    answer = face.answer(put("n", b"abc"), **scope)
    assert (answer.status == 200) is taken
    assert taken or "checksum" in answer.message
    assert face.answer(put("n", b"abc", payload_hash=sha256(b"abc").hex()), **scope).status == 200
    assert face.answer(put("n", b"abc", ("content-md5", "kAFQmDzST7DWlj99KOF/cg==")), **scope).status == 200
    assert face.answer(put("n", b"abd", ("content-md5", "kAFQmDzST7DWlj99KOF/cg==")), **scope).status == 400


@pytest.mark.parametrize("is_signed", [True, False])
def test_only_a_signed_content_type_decides_how_a_body_is_read(face, is_signed):
    header, body = ("content-type", "application/json"), b'{"InlineChunk":"x"}'
    request = put("n", body, *([header] if is_signed else []), payload_hash=sha256(body).hex())
    if not is_signed:
        request.headers.append(header)
    assert face.answer(request).status == 200
    assert face.backend.objects["n"] == (b"x" if is_signed else body)


@pytest.mark.parametrize("method", ["UNSIGNED-PAYLOAD", None])
def test_a_signature_that_can_be_verified_without_the_body_is(face, method):
    """An SDK may sign UNSIGNED-PAYLOAD without a header that says so, and the empty hash where there is no body."""
    wrong = put("n", b"abc" if method else b"", credentials=WRONG, payload_hash=method, send_hash=False)
    assert face.answer(wrong).error == "InvalidSignatureException"
    right = put("n", b"abc" if method else b"", payload_hash=method, send_hash=False)
    face.budget.take(8 * MIB)
    assert face.answer(right).status == (429 if method else 200)  # before a byte of the body
    face.budget.release(8 * MIB)
    assert face.answer(right).status == 200


@pytest.mark.parametrize("declare", [True, False], ids=["declared", "chunked"])
def test_a_body_may_be_as_long_as_the_limit(face, declare):
    assert face.answer(put("n", b"a" * 4 * MIB), declare=declare).status == 200
    answer = face.answer(put("n", b"a" * (4 * MIB + 1)), declare=declare)
    assert (answer.status, answer.error) == (400, "IllegalArgumentException")
    assert str(4 * MIB) in answer.message
    assert len(face.backend.calls) == 1


def test_a_body_that_is_too_long_is_not_requested(face):
    face.answer(put("n", b"a" * (4 * MIB + 1)))
    assert not face.asked_for_body


def test_a_control_plane_document_may_be_as_long_as_its_limit(face):
    answer = face.answer(signed("PUT", "/backup-jobs", service="backup", body=b" " * (MIB + 1), now_ms=NOW_MS))
    assert (answer.status, answer.error) == (400, "InvalidParameterValueException")


@pytest.mark.parametrize("header", [("content-encoding", "aws-chunked"), ("content-encoding", "gzip")])
def test_a_body_with_a_content_encoding_is_refused(face, header):
    answer = face.answer(put("n", b"abc", header))
    assert (answer.error, face.asked_for_body) == ("IllegalArgumentException", False)


def test_a_streaming_signature_is_refused(face):
    answer = face.answer(put("n", b"abc", payload_hash="STREAMING-AWS4-HMAC-SHA256-PAYLOAD"))
    assert answer.error in {"IllegalArgumentException", "InvalidSignatureException"}
    assert face.backend.calls == []


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("explode", 500, "ServiceInternalException"),
    ],
)
def test_a_failure_of_the_service_is_answered_and_logged(face, name, status, error):
    answer = face.answer(put(name))
    assert (answer.status, answer.error) == (status, error)
    assert b"Traceback" not in answer.body
    failure, line = face.lines()
    assert failure["event"] == "failure"
    assert failure["traceback"].startswith("Traceback")
    assert failure["request_id"] == line["request_id"] == FIRST_ID
    assert (line["status"], line["error"], line["operation"]) == (status, error, "PutObject")


@pytest.mark.parametrize(
    ("name", "status", "error", "kind"),
    [("no-key", 400, "KMSInvalidKeyUsageException", "key"), ("damaged", 410, "DamagedDataException", "damaged")],
)
def test_a_foreseen_failure_is_logged_without_a_traceback(face, name, status, error, kind):
    answer = face.answer(put(name))
    assert (answer.status, answer.error) == (status, error)
    failure, line = face.lines()
    assert (failure["kind"], "traceback" in failure) == (kind, False)
    assert failure["request_id"] == line["request_id"] == FIRST_ID


def test_a_storage_failure_is_logged_in_one_line_without_a_traceback(face):
    answer = face.answer(put("full"))
    assert (answer.status, answer.error) == (503, "ServiceUnavailableException")
    assert b"/secret" not in answer.body
    failure, line = face.lines()
    assert failure["hint"]
    assert {**failure, "time": 0, "hint": ""} == {
        "time": 0,
        "level": "error",
        "event": "storage failure",
        "kind": "full",
        "message": "no space left on /secret/path",
        "hint": "",
        "request_id": line["request_id"],
        "operation": "PutObject",
    }


def test_an_error_of_the_api_keeps_its_members(face):
    answer = face.answer(put("exists"))
    document = json.loads(answer.body)
    assert (document["Checksum"], document["ChecksumAlgorithm"]) == ("c", "SUMMARY")
    assert [line["event"] for line in face.lines()] == ["request"]


def test_an_error_has_the_status_of_its_api(face):
    def busy(operation, caller):
        raise StatusProbeError

    face.backend.call = busy
    assert face.answer(put("n")).status == 500
    assert face.answer(list_vaults()).status == 500


class StatusProbeError(Exception):
    """An error that is not in the model."""


def test_too_many_bytes_at_once_are_throttled(face):
    face.budget.take(8 * MIB)
    answer = face.answer(put("n", b"abc"))
    assert (answer.status, answer.error) == (429, "ThrottlingException")
    assert face.backend.calls == []


@pytest.mark.parametrize("name", ["n", "explode", "exists"])
def test_the_budget_is_released_after_every_outcome(face, name):
    face.answer(put(name, b"a" * MIB))
    face.answer(put(name, b"a" * MIB), declare=False)
    assert face.budget.free_bytes == 8 * MIB


def test_the_bytes_of_an_answer_are_budgeted_until_it_is_written(face):
    face.backend.objects["large"] = b"a" * (READ_BYTES + 1000)
    answer = face.answer(signed("GET", "/restore-jobs/r/chunk/large", now_ms=NOW_MS))
    assert (answer.status, len(answer.body)) == (200, READ_BYTES + 1000)
    assert answer.headers["x-amz-data-length"] == str(READ_BYTES + 1000)
    assert face.budget.free_bytes == 8 * MIB
    assert {"GetChunk", "GetObjectMetadata"} == READS


def test_log_lines_name_the_caller_and_the_operation_and_no_secret(face):
    path = f"/restore-jobs/r/chunk/{TOKEN}"
    face.backend.objects[TOKEN] = b"abc"
    answers = [
        face.answer(signed("GET", path, now_ms=NOW_MS)),
        face.answer(put("n", METADATA.encode())),
        face.answer(signed("GET", "/restore-jobs/r/objects/list", f"next-token={TOKEN}", now_ms=NOW_MS)),
        face.answer(put("explode", METADATA.encode())),
        face.answer(Request("GET", path, "", [("host", "x"), ("authorization", "AWS4-HMAC-SHA256 \n")]), body=b""),
    ]
    assert [answer.status for answer in answers] == [200, 200, 200, 500, 400]
    lines = face.lines()
    text = face.log_path.read_text()
    assert all(secret not in text for secret in (TOKEN, METADATA, CREDENTIALS.secret_access_key))
    first = lines[0]
    assert first.pop("duration_ms") >= 0
    assert first == {
        "time": "2023-11-14T22:13:20.000Z",
        "level": "info",
        "event": "request",
        "request_id": FIRST_ID,
        "operation": "GetChunk",
        "status": 200,
        "bytes_in": 0,
        "bytes_out": 3,
        "access_key_id": CREDENTIALS.access_key_id,
    }
    assert lines[1]["bytes_in"] == len(METADATA)


def test_operations_of_both_apis_are_served(face):
    # the fake backend has no vaults, but was called
    assert face.answer(list_vaults()).error == "ServiceInternalException"
    assert face.backend.calls[0].declaration.api is Api.BACKUP
