"""A request body: its declared length, its limit, and refused framing."""

from __future__ import annotations

import asyncio

import pytest

from cryostore.model.errors import (
    IllegalArgumentException,
    InvalidParameterValueException,
    NotReadableInputStreamException,
)
from cryostore.server.http import body
from cryostore.wire.message import Request


def with_headers(*headers):
    return Request("PUT", "/", "", list(headers))


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ([], 0),
        ([("content-length", "0")], 0),
        ([("content-length", "12")], 12),
        ([("transfer-encoding", "chunked")], None),
        ([("transfer-encoding", " Chunked ")], None),
        ([("content-length", "12"), ("content-encoding", "identity")], 12),
        ([("content-length", "12"), ("content-encoding", "")], 12),
    ],
)
def test_the_declared_length_of_a_body(headers, length):
    assert body.declared_bytes(with_headers(*headers), "backup-storage") == length


@pytest.mark.parametrize(
    "header",
    [
        ("transfer-encoding", "gzip, chunked"),
        ("content-encoding", "gzip"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
    ],
)
def test_an_encoded_or_streamed_body_is_refused(header):
    with pytest.raises(IllegalArgumentException):
        body.declared_bytes(with_headers(header), "backup-storage")
    with pytest.raises(InvalidParameterValueException):
        body.declared_bytes(with_headers(header), "backup")


def read(*messages, bytes_max=10):
    coming = iter(messages)

    async def receive():
        return next(coming)

    return asyncio.run(body.read(receive, "backup-storage", bytes_max))


def piece(data, more):
    return {"type": "http.request", "body": data, "more_body": more}


def test_pieces_become_one_body():
    assert read(piece(b"abc", more=False)) == b"abc"
    assert read(piece(b"abc", more=True), piece(b"", more=True), piece(b"def", more=True), piece(b"g", more=False)) == (
        b"abcdefg"
    )
    assert read({"type": "http.request"}) == b""


def test_the_limit_of_a_body_is_exact_to_the_byte():
    assert read(piece(b"a" * 9, more=True), piece(b"b", more=False)) == b"a" * 9 + b"b"
    with pytest.raises(IllegalArgumentException):
        read(piece(b"a" * 9, more=True), piece(b"bb", more=False))


def test_a_body_that_breaks_off_is_not_returned():
    with pytest.raises(NotReadableInputStreamException):
        read(piece(b"abc", more=True), {"type": "http.disconnect"})
