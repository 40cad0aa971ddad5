"""Blobs in JSON: every form of one, and the memory that decoding takes."""

from __future__ import annotations

import base64
import json
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.core.digest import Payload, sha256
from cryostore.core.limits import KIB, MIB, Limits
from cryostore.model.errors import IllegalArgumentException, InvalidParameterValueException
from cryostore.wire import document, json_blob
from cryostore.wire.json_blob import payload
from cryostore.wire.message import Request
from cryostore.wire.request import decode_head
from cryostore.wire.route import match

PUT_OBJECT = "/backup-jobs/J/object/N/put-object"


def read(text, *, length=None, digest=None, bytes_max=MIB):
    return bytes(payload(msgspec.Raw(text), length=length, digest=digest, bytes_max=bytes_max).data)


@given(st.text(max_size=200), st.booleans())
def test_a_text_is_its_utf8(text, escaped):
    assert read(json.dumps(text, ensure_ascii=escaped).encode("utf-8", "replace")) == text.encode("utf-8", "replace")


@pytest.mark.parametrize("tail", range(4))
def test_pieces_end_within_no_escape(tail):
    """Long enough for many pieces, with a surrogate pair wherever one may end."""
    text = "a" * tail + "\U0001f600\n\\é" * 20_000
    for escaped in (True, False):
        assert read(json.dumps(text, ensure_ascii=escaped).encode()) == text.encode()


@given(st.binary(max_size=300), st.integers(8, 70))
def test_every_reading_in_small_pieces(data, piece_bytes):
    before = json_blob.PIECE_BYTES
    json_blob.PIECE_BYTES = piece_bytes
    try:
        for text in (base64.b64encode(data).decode(), data.decode("latin-1")):
            for written in (json.dumps(text), json.dumps(text).replace("/", "\\/")):
                assert read(written.encode(), length=len(data), digest=sha256(data)) == data
        assert read(json.dumps(list(data)).encode()) == data
        assert read(json.dumps(list(data), separators=(" ,\n", ":")).encode()) == data
    finally:
        json_blob.PIECE_BYTES = before


@pytest.mark.parametrize(
    "text", [b"[256]", b"[-1]", b"[[1],[2]]", b'["1,2"]', b"[1,null]", b"[{}]", b"7", b"{}", b"[1.5]"]
)
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="must be"):
        read(text)


def test_no_more_is_built_than_one_byte_too_many():
    assert len(read(b'"' + b"a" * 1000 + b'"', bytes_max=10)) == 11
    assert len(read(json.dumps([7] * 100_000).encode(), bytes_max=10)) == 11


def finish(body, path=PUT_OBJECT):
    head = decode_head(match("PUT", path), Request("PUT", path, "", []), Limits(), content_type="application/json")
    return head, lambda: head.finish(Payload(body))


BOMBS = {
    "lists": b'{"InlineChunk":[' + b"[]," * (2 * MIB) + b"[]]}",
    "objects": b'{"InlineChunk":[' + b"{}," * (2 * MIB) + b"{}]}",
    "texts": b'{"InlineChunk":[' + b'"",' * (2 * MIB) + b'""]}',
    "floats": b'{"InlineChunk":[' + b"1.5," * MIB + b"1.5]}",
    "in another member": b'{"metadata-string":[' + b"[]," * (2 * MIB) + b"[]]}",
    "a long text elsewhere": b'{"metadata-string":"' + b"a" * (6 * MIB) + b'"}',
    "keys": b"{" + b'"a":0,' * MIB + b'"b":0}',
    "one key": b"{" + b'"length":0,' * (MIB // 2) + b'"x":0}',
    "wide characters": b'{"metadata-string":"' + "\U0001f600".encode() + b"a" * (6 * MIB) + b'"}',
    "not UTF-8": b'{"InlineChunk":[' + b"[]," * (2 * MIB) + b'"\xff"]}',
    "deep": b'{"InlineChunk":' + b"[" * 6 * MIB + b"}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_built(name):
    _, finishing = finish(BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(IllegalArgumentException):
            finishing()
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text", [b"[" + b"200," * (2 * MIB) + b"200]", b'"' + b"\\n" * (2 * MIB) + b'"', b'"' + b"a" * (4 * MIB) + b'"']
)
def test_a_blob_takes_the_memory_that_the_budget_counts(text):
    body = b'{"InlineChunk":' + text + b"}"
    head, finishing = finish(body)
    tracemalloc.start()
    try:
        finishing()
        assert tracemalloc.get_traced_memory()[1] < head.blob_bytes_max(len(body)) + 4 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("filler", [b"[]", b"{}", b'""', b"0"])
def test_a_document_has_so_many_values(filler):
    body = b'{"Unknown":[' + (filler + b",") * document.VALUES_MAX + filler + b"]}"
    assert len(body) < Limits().request_document_bytes_max
    _, finishing = finish(body, "/backup-jobs")
    with pytest.raises(InvalidParameterValueException, match="values"):
        finishing()


def test_the_values_of_a_document_take_the_memory_that_is_counted():
    body = b'{"BackupVaultName":[' + b"[]," * 60_000 + b'{"a":"b","c":"d"}]}'
    head, finishing = finish(body, "/backup-jobs")
    tracemalloc.start()
    try:
        with pytest.raises(InvalidParameterValueException):
            finishing()
        assert tracemalloc.get_traced_memory()[1] < head.values_bytes_max(Payload(body))
    finally:
        tracemalloc.stop()
    assert head.values_bytes_max(Payload(b"{}")) < KIB
