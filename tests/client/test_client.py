"""The client: its requests, its results, and its retries."""

from __future__ import annotations

import msgspec
import pytest

from cryostore.client.client import Client
from cryostore.client.retry import Retry
from cryostore.client.transport import ConnectionFailedError
from cryostore.core.digest import Payload
from cryostore.core.errors import ConfigurationError
from cryostore.core.ids import counting_ids
from cryostore.core.time import FrozenClock
from cryostore.model import OPERATIONS
from cryostore.model.chunks import PutChunk
from cryostore.model.errors import (
    DataAlreadyExistsException,
    IllegalArgumentException,
    InvalidParameterValueException,
    MissingParameterValueException,
    NotReadableInputStreamException,
    ResourceNotFoundException,
    ServiceUnavailableException,
)
from cryostore.model.jobs import CommitBackupJob, DescribeBackupJob, StartBackupJob
from cryostore.model.objects import DeleteObject
from cryostore.model.vaults import CreateBackupVault
from cryostore.wire.message import Response
from cryostore.wire.sigv4 import Credentials, read_signature, verify
from support.faults.faulty_server import answer, cut, fail, faulty_server

SECRET = "wJalrXUtnFEMI-the-secret"
CREDENTIALS = Credentials("AKEXAMPLE", SECRET)
CHECKSUM = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
PUT_CHUNK = PutChunk(
    backup_job_id="JOB",
    upload_id="UPLOAD",
    chunk_index=7,
    data=Payload(b"hello"),
    length=5,
    checksum=CHECKSUM,
    checksum_algorithm="SHA256",
)
PUT_CHUNK_ANSWER = f'{{"ChunkChecksum":"{CHECKSUM}","ChunkChecksumAlgorithm":"SHA256"}}'.encode()
START_JOB = StartBackupJob(
    backup_vault_name="Default",
    resource_arn="arn:aws:cryo:local-1:000000000000:fileset:host:name",
    iam_role_arn="arn:aws:iam::000000000000:role/backup-agent",
)


class Recorder:
    """A transport that answers from a list and records the requests."""

    def __init__(self, *responses):
        self.responses = list(responses)
        self.requests = []

    def send(self, request):
        self.requests.append(request)
        return self.responses.pop(0)

    def close(self):
        self.requests.append("closed")


def response(status=200, body=b"{}", **headers):
    return Response(status, [(name.replace("_", "-"), value) for name, value in headers.items()], Payload(body))


def client(transport=None, *, url="http://127.0.0.1:9440", clock=None, waits=None):
    retry = Retry(random=lambda: 1.0, sleep=([] if waits is None else waits).append)
    return Client(
        url,
        "local-1",
        CREDENTIALS,
        retry=retry,
        transport=transport,
        now=clock or FrozenClock(),
        new_id=counting_ids(),
    )


def test_a_call_is_encoded_signed_and_decoded():
    transport = Recorder(response(body=PUT_CHUNK_ANSWER))
    clock = FrozenClock()
    output = client(transport, clock=clock).call(PUT_CHUNK)
    assert output.chunk_checksum == CHECKSUM
    (request,) = transport.requests
    assert (request.method, request.path) == ("PUT", "/backup-jobs/JOB/chunk/UPLOAD/7")
    assert request.header("host") == "127.0.0.1:9440"
    assert request.header("user-agent").startswith("cryostore/")
    signature = read_signature(request)
    assert (signature.access_key_id, signature.region, signature.service) == ("AKEXAMPLE", "local-1", "backup-storage")
    assert signature.payload_hash == Payload(b"hello").sha256.hex(), "over plain HTTP the signature covers the body"
    verify(request, signature, SECRET, now_ms=clock())


def test_over_tls_only_unsigned_payload_operations_do_not_sign_the_body():
    transport = Recorder(response(body=PUT_CHUNK_ANSWER), response(body=b'{"BackupJobId":"JOB"}'))
    over_tls = client(transport, url="https://backup.example")
    over_tls.call(PUT_CHUNK)
    over_tls.call(START_JOB)
    first, second = transport.requests
    assert read_signature(first).payload_hash == "UNSIGNED-PAYLOAD"
    assert read_signature(second).payload_hash != "UNSIGNED-PAYLOAD"
    assert (first.header("host"), read_signature(second).service) == ("backup.example", "backup")


def test_each_attempt_has_a_signature_with_its_own_date():
    clock = FrozenClock()
    transport = Recorder(response(503), response(body=PUT_CHUNK_ANSWER))
    retry = Retry(random=lambda: 1.0, sleep=lambda seconds: clock.advance(round(seconds * 1000) + 1000))
    Client("http://h", "r", CREDENTIALS, retry=retry, transport=transport, now=clock).call(PUT_CHUNK)
    first, second = (read_signature(request) for request in transport.requests)
    assert first.timestamp != second.timestamp
    assert first.signature != second.signature
    assert len(transport.requests[1].headers_named("authorization")) == 1


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (START_JOB, "IdempotencyToken"),
        (CommitBackupJob(backup_job_id="JOB"), "CommitToken"),
        (CreateBackupVault(backup_vault_name="vault"), "CreatorRequestId"),
    ],
)
def test_all_attempts_have_the_same_generated_token(operation, name):
    body = b'{"BackupJobId":"JOB","State":"COMPLETED"}'
    transport = Recorder(response(500), response(500), response(body=body))
    client(transport).call(operation)
    tokens = [msgspec.json.decode(request.body.data)[name] for request in transport.requests]
    assert tokens == ["00000000-0000-4000-8000-000000000001"] * 3


def test_a_given_token_is_kept():
    transport = Recorder(response(body=b"{}"))
    client(transport).call(msgspec.structs.replace(START_JOB, idempotency_token="mine"))
    assert msgspec.json.decode(transport.requests[0].body.data)["IdempotencyToken"] == "mine"


def test_operations_that_must_not_run_twice_have_a_token():
    """Without a token, a retry could start a second job or commit twice."""
    with_token = {name for name, one in OPERATIONS.items() if any(m.idempotency_token for m in one.members)}
    assert with_token >= {"StartBackupJob", "StartRestoreJob", "CommitBackupJob", "CreateBackupVault"}


@pytest.mark.parametrize(
    ("step", "expected", "attempts"),
    [
        (fail(400, "IllegalArgumentException"), IllegalArgumentException, 1),
        (fail(404, "ResourceNotFoundException"), ResourceNotFoundException, 1),
        (fail(400, "NotReadableInputStreamException"), NotReadableInputStreamException, 5),
        (fail(503, "ServiceUnavailableException"), ServiceUnavailableException, 5),
        (cut, ConnectionFailedError, 5),
    ],
)
def test_errors_over_the_wire(step, expected, attempts):
    waits = []
    with faulty_server(*[step] * attempts) as server:
        with client(url=server.url, waits=waits) as tcp, pytest.raises(expected):
            tcp.call(PUT_CHUNK)
        assert len(server.received) == attempts
    assert len(waits) == attempts - 1


@pytest.mark.parametrize(
    "steps",
    [
        [fail(500, "RetryableException")],
        [fail(429, "ThrottlingException")],
        [fail(400, "ThrottlingException")],
        [fail(400, "NotReadableInputStreamException")],
        [cut, answer(502, b"<html>Bad Gateway</html>")],
        [cut, cut, fail(503, "ServiceUnavailableException", retry_after="1"), fail(500, "ServiceInternalException")],
    ],
)
def test_transient_failures_are_retried(steps):
    with faulty_server(*steps, answer(body=PUT_CHUNK_ANSWER)) as server, client(url=server.url) as tcp:
        assert tcp.call(PUT_CHUNK).chunk_checksum == CHECKSUM
        assert {request[3] for request in server.received} == {b"hello"}, "each attempt carries the whole body"


def test_an_error_carries_its_members_and_the_request_id():
    body = f'{{"Code":"DataAlreadyExistsException","Message":"exists","Checksum":"{CHECKSUM}"}}'.encode()
    transport = Recorder(response(400, body, x_amzn_errortype="DataAlreadyExistsException", x_amzn_requestid="R-1"))
    with pytest.raises(DataAlreadyExistsException, match="exists") as raised:
        client(transport).call(PUT_CHUNK)
    assert raised.value.checksum == CHECKSUM
    assert raised.value.__notes__ == ["PutChunk, request id R-1"]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (DescribeBackupJob(backup_job_id=""), MissingParameterValueException),
        (DeleteObject(backup_job_id="JOB", object_name=""), IllegalArgumentException),
    ],
)
def test_an_empty_label_is_refused_because_its_path_is_that_of_another_operation(operation, expected):
    transport = Recorder()
    with pytest.raises(expected, match="is required"):
        client(transport).call(operation)
    assert transport.requests == []


def test_an_unknown_error_of_the_control_plane_keeps_its_class():
    transport = Recorder(response(400, b"{}", x_amzn_errortype="InvalidParameterValueException"))
    with pytest.raises(InvalidParameterValueException):
        client(transport).call(START_JOB)


def test_no_text_contains_the_secret(caplog):
    transport = Recorder(response(403, b"{}", x_amzn_errortype="InvalidSignatureException"))
    one = client(transport)
    with pytest.raises(Exception) as raised:
        one.call(PUT_CHUNK)
    texts = [repr(one), str(one), repr(raised.value), str(raised.value), caplog.text, repr(vars(one))]
    assert not any(SECRET in text for text in [*texts, *(str(request.headers) for request in transport.requests)])


def test_a_malformed_endpoint_is_refused_at_once():
    with pytest.raises(ConfigurationError):
        client(url="127.0.0.1:9440")


def test_leaving_the_context_closes_the_transport():
    transport = Recorder()
    with client(transport):
        pass
    assert transport.requests == ["closed"]
