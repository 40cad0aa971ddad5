"""Prepared request heads: complete, and accepted by the server's signature check."""

from __future__ import annotations

import hashlib

import pytest
from bench.load.signature import Signer, query_text

from cryostore.core.digest import Payload
from cryostore.core.time import wall_clock
from cryostore.model.errors import InvalidSignatureException
from cryostore.wire.message import Request
from cryostore.wire.sigv4 import Credentials, read_signature, verify

KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


def parsed(head: bytes) -> Request:
    lines = head.decode().split("\r\n")
    assert lines[-2:] == ["", ""]
    method, target, version = lines[0].split(" ")
    assert version == "HTTP/1.1"
    path, _, query = target.partition("?")
    return Request(method, path, query, [tuple(line.split(": ", 1)) for line in lines[1:-2]])


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        (
            "PUT",
            "/backup-jobs/J/chunk/U/7",
            {"length": "4", "checksum-algorithm": "SHA256"},
            b"data",
        ),
        ("GET", "/restore-jobs/J/chunk/t.o~k-e_n", {}, b""),
        ("GET", "/restore-jobs/J/objects/list", {"next-token": "a+b/c= d", "max-results": "100"}, b""),
    ],
)
def test_the_server_accepts_the_signature(method, path, query, body):
    head = Signer(KEY, "h:1", "backup-storage").head(method, path, query, hashlib.sha256(body).hexdigest(), len(body))
    request = parsed(head)
    verify(request, read_signature(request), KEY.secret_access_key, now_ms=wall_clock(), body=Payload(body))
    request.path += "x"
    with pytest.raises(InvalidSignatureException):
        verify(request, read_signature(request), KEY.secret_access_key, now_ms=wall_clock(), body=Payload(body))


def test_only_requests_with_a_body_have_a_length():
    signer = Signer(KEY, "h:1", "backup-storage")
    assert parsed(signer.head("PUT", "/a", {}, "0" * 64, 5)).header("content-length") == "5"
    assert parsed(signer.head("GET", "/a", {}, "0" * 64, 0)).header("content-length") is None


def test_queries_are_percent_encoded():
    assert query_text({"b": "c d/", "a": "~"}) == "b=c%20d%2F&a=~"
