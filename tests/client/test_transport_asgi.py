"""A client over a transport without a socket."""

from __future__ import annotations

import json

import pytest

from cryostore.client.client import Client
from cryostore.core.digest import Payload
from cryostore.model.errors import ResourceNotFoundException, ServiceInternalException
from cryostore.model.objects import PutObject, StartObject
from cryostore.wire.sigv4 import Credentials
from support.requests.asgi_transport import AsgiTransport


async def application(scope, receive, send):
    """An ASGI application that answers with an upload id made of method, path and body length."""
    body = (await receive())["body"]
    known = scope["raw_path"] != b"/backup-jobs/ABSENT/object/name"
    answer = {"UploadId": f"{scope['method']} {scope['raw_path'].decode()} {len(body)}"}
    headers = [(b"x-amzn-errortype", b"ResourceNotFoundException")]
    await send({"type": "http.response.start", "status": 200 if known else 404, "headers": [] if known else headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


@pytest.fixture
def client():
    with Client("http://test", "local-1", Credentials("AK", "SK"), transport=AsgiTransport(application)) as one:
        yield one


def test_an_operation_is_sent_and_its_answer_decoded(client):
    answer = client.call(StartObject(backup_job_id="JOB", object_name="a/b", throw_on_duplicate=True))
    assert answer.upload_id == "PUT /backup-jobs/JOB/object/a%2Fb 25"


def test_an_error_is_raised(client):
    with pytest.raises(ResourceNotFoundException):
        client.call(StartObject(backup_job_id="ABSENT", object_name="name"))


def test_a_memoryview_is_sent_as_a_body(client):
    put = PutObject(backup_job_id="JOB", object_name="n", inline_chunk=Payload(memoryview(b"data")))
    with pytest.raises(ServiceInternalException, match="cannot be read"):  # the answer of another operation
        client.call(put)
