"""botocore as the oracle: the server half decodes its requests, and it decodes our answers. No socket is opened."""

from __future__ import annotations

from datetime import datetime

import botocore.exceptions
import msgspec
import pytest
from botocore.awsrequest import AWSResponse
from botocore.response import StreamingBody
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostore.core.digest import Payload
from cryostore.core.limits import Limits
from cryostore.model import OPERATIONS, Api
from cryostore.model.errors import ERRORS, DataAlreadyExistsException
from cryostore.model.operation import Body, Header
from cryostore.wire import error, response, sigv4
from cryostore.wire.message import header_text
from cryostore.wire.request import decode_head
from cryostore.wire.route import match
from support.clients import sdk_folder
from support.requests import botocore_signer, strategies

SECRET = "SECRET"
SERVICES = {Api.BACKUP_STORAGE: "backupstorage", Api.BACKUP: "backup"}
DECLARED = [pytest.param(one, id=one.name) for one in OPERATIONS.values()]


class Wire:
    """Replaces botocore's HTTP session: decodes the request, and returns a prepared answer."""

    def __init__(self):
        self.operation = None
        self.answer = None

    def __call__(self, request, **_):
        received = botocore_signer.received(request, _bytes(request.body))
        signature = sigv4.read_signature(received)
        head = decode_head(match(received.method, received.path), received, Limits())
        assert len(received.body) <= head.body_bytes_max
        body = received.body if signature.needs_body else None
        now_ms = signature.signed_at_ms
        sigv4.verify(received, signature, SECRET, now_ms=now_ms, declaration=head.declaration, body=body)
        sigv4.verify_payload(signature, head.declaration, received.body)
        self.operation = head.finish(received.body)
        return AWSResponse(
            request.url, self.answer.status, dict(self.answer.headers), Raw(bytes(self.answer.body.data))
        )


class Raw:
    """The body of an answer, as urllib3 would return it."""

    def __init__(self, data):
        self.data = data

    def stream(self):
        yield self.data

    def read(self, amount=None):
        taken, self.data = self.data[:amount], self.data[len(self.data[:amount]) :]
        return taken


def _bytes(body):
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    return bytes(body) if isinstance(body, (bytes, bytearray)) else body.read()


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """A client of each service, and the wire that they use."""
    folder = sdk_folder.write(tmp_path_factory.mktemp("models"))
    wire = Wire()
    made = {}
    for api, service in SERVICES.items():
        made[api] = sdk_folder.client(folder, service)
        made[api].meta.events.register("before-send", wire)
    return made, wire


def call(clients, declaration, arguments, answer):
    made, wire = clients
    wire.answer = answer
    client = made[declaration.api]
    return client._make_api_call(declaration.name, arguments), wire.operation


def as_arguments(found):
    return {
        name: bytes(value.data) if isinstance(value, Payload) else msgspec.to_builtins(value)
        for name, value in found.items()
    }


def as_parsed(declaration, output):
    """An output in the form in which botocore returns it to its caller."""
    parsed = {}
    for member in declaration.output_members:
        value = getattr(output, member.attribute)
        if isinstance(member.binding, Body):
            parsed[member.name] = bytes(value.data) if value is not None else b""
        elif isinstance(member.binding, Header) and isinstance(value, str):
            parsed[member.name] = header_text(value)  # botocore does not decode the bytes of a header
        elif value is not None:
            parsed[member.name] = msgspec.to_builtins(value)
    return parsed


def plain(value):
    """A parsed answer with times as epoch seconds and streams as bytes."""
    if isinstance(value, datetime):
        return round(value.timestamp(), 3)
    if isinstance(value, StreamingBody):
        return value.read()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "ResponseMetadata"}
    return [plain(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("declaration", DECLARED)
@given(data=st.data())
@settings(max_examples=settings().max_examples // 3)
def test_we_decode_requests_of_botocore_and_it_decodes_our_answers(clients, declaration, data):
    arguments = data.draw(strategies.arguments(declaration))
    output = data.draw(strategies.outputs(declaration))
    parsed, operation = call(clients, declaration, as_arguments(arguments), response.encode(declaration, output))
    for member in declaration.members:
        if member.name in arguments or not member.idempotency_token:
            assert getattr(operation, member.attribute) == arguments.get(member.name)
        else:
            assert getattr(operation, member.attribute), "botocore fills idempotency tokens"
    assert parsed["ResponseMetadata"]["HTTPStatusCode"] == declaration.status
    assert plain(parsed) == as_parsed(declaration, output)


@pytest.mark.parametrize("name", [name for name in ERRORS if name.endswith("Exception")])
@given(declaration=st.sampled_from(list(OPERATIONS.values())), data=st.data())
@settings(max_examples=settings().max_examples // 10)
def test_botocore_reads_name_and_message_of_every_error(clients, name, declaration, data):
    arguments = as_arguments(data.draw(strategies.arguments(declaration)))
    answer = error.encode(ERRORS[name]("what is wrong"), declaration.api, "R-1")
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(clients, declaration, arguments, answer)
    assert caught.value.response["Error"]["Code"] == name
    assert caught.value.response["Error"]["Message"] == "what is wrong"
    assert caught.value.response["ResponseMetadata"]["RequestId"] == "R-1"
    modelled = {kind.__name__ for kind in declaration.errors}
    assert name not in modelled or type(caught.value).__name__ == name


def test_an_error_keeps_its_members_in_botocore(clients):
    declaration = OPERATIONS["StartObject"]
    answer = error.encode(DataAlreadyExistsException("there", checksum="c"), declaration.api, "R")
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(clients, declaration, {"BackupJobId": "J", "ObjectName": "N"}, answer)
    assert caught.value.response["Checksum"] == "c"
