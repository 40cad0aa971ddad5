"""Compressed responses: a client that accepts zstd gets compressed chunks, any other client plain ones."""

from __future__ import annotations

import random

import pytest

from cryostore.client.client import Client
from cryostore.client.transport import Endpoint, HttpTransport
from support.requests.api import Api

TEXT = b"".join(b"line %d of a log\n" % number for number in range(20_000))
NOISE = random.Random(7).randbytes(50_000)


class RecordingTransport:
    """A transport that keeps the last response, and may remove the client's accept-encoding."""

    def __init__(self, endpoint_url, *, accepts_zstd):
        self._transport = HttpTransport(Endpoint.parse(endpoint_url))
        self._accepts_zstd = accepts_zstd
        self.answer = None

    def send(self, request):
        if not self._accepts_zstd:
            request.headers = [header for header in request.headers if header[0] != "accept-encoding"]
        self.answer = self._transport.send(request)
        return self.answer

    def close(self):
        self._transport.close()


@pytest.mark.parametrize("accepts_zstd", [True, False], ids=["accepts zstd", "accepts nothing"])
@pytest.mark.parametrize("data", [TEXT, NOISE], ids=["text", "noise"])
def test_a_chunk_has_an_encoding_that_the_client_accepts(server, data, accepts_zstd):
    settings = server.settings
    seen = RecordingTransport(settings.endpoint_url, accepts_zstd=accepts_zstd)
    with Client(settings.endpoint_url, settings.region, settings.credentials, transport=seen) as client:
        api = Api(client, server.data_dir)
        job = api.start_job()
        upload = api.start(job, "object")
        api.chunk(job, upload, 0, data)
        api.complete(job, upload, [data])
        assert api.read_chunks(job, api.found(job, "object").object_token) == {0: data}
    is_compressed = accepts_zstd and data is TEXT
    assert seen.answer.header("content-encoding") == ("zstd" if is_compressed else None)
    assert seen.answer.header("x-amz-data-length") == f"{len(data)}"
    assert (len(seen.answer.body) < len(data) // 3) is is_compressed
