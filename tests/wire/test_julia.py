"""Requests of AWS.jl: one JSON object for everything but the labels, blobs in it, and raw request lines (A.5)."""

from __future__ import annotations

import base64
import hashlib
import json
import tracemalloc

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cryostore.core.digest import Payload, sha256
from cryostore.core.limits import KIB, MIB, Limits
from cryostore.model.errors import IllegalArgumentException, InvalidParameterValueException
from cryostore.model.operation import Body, Label, Query, Timestamp
from cryostore.wire import document, julia
from cryostore.wire.julia import decode_blob, escape_line, restore_url
from cryostore.wire.message import Request
from cryostore.wire.request import decode_head, encode
from cryostore.wire.route import match
from support.requests import strategies

LIMITS = Limits()
JSON = [("content-type", "application/json")]
BLOBS = ("PutChunk", "PutObject", "NotifyObjectComplete")
PUT_OBJECT = "/backup-jobs/J/object/N/put-object"
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


def decoded(method, path, body, *, query="", headers=JSON, limits=LIMITS):
    request = Request(method, path, query, headers)
    head = decode_head(match(method, path), request, limits, content_type=request.header("content-type"))
    assert len(body) <= head.body_bytes_max
    return head.finish(Payload(body))


def as_julia(operation, blob):
    """The body that AWS.jl sends for an operation; `blob` makes the JSON value of its raw body."""
    document = {}
    for member in operation.declaration.members:
        value = getattr(operation, member.attribute)
        if value is None or isinstance(member.binding, Label):
            continue
        if isinstance(member.binding, Body):
            document[member.name] = blob(bytes(value.data))
        else:
            document[member.wire_name] = msgspec.to_builtins(value)
    return json.dumps(document).encode()


def put_chunk(data, text, **changed):
    """A PutChunk of `data` whose Data member is `text`, as JSON bytes."""
    document = {
        "checksum": hashlib.sha256(data).hexdigest(),
        "checksum-algorithm": "SHA256",
        "length": len(data),
        **changed,
    }
    return json.dumps(document).encode()[:-1] + b', "Data": ' + text + b"}"


@given(strategies.operations())
def test_every_operation_has_this_form(operation):
    request = encode(operation)
    assert decoded(request.method, request.path, as_julia(operation, list)) == operation


def test_null_means_absent():
    """Julia writes `nothing` as null."""
    operation = decoded("PUT", "/backup-jobs/J/object/N/put-object", b'{"InlineChunk":null,"length":null}')
    assert (operation.inline_chunk, operation.inline_chunk_length) == (None, None)


@given(strategies.operations())
def test_numbers_and_booleans_may_be_strings(operation):
    request = encode(operation)
    document = json.loads(as_julia(operation, list))
    for member in operation.declaration.members:
        value = document.get(member.wire_name)
        if isinstance(member.binding, Query) and member.type in (int, bool, Timestamp) and value is not None:
            document[member.wire_name] = json.dumps(value)
    assert decoded(request.method, request.path, json.dumps(document).encode()) == operation


@given(st.binary(max_size=60))
@example(b"aGVsbG8=")
@example(b"aGVs")
@example("é€".encode())
@example("é".encode().decode("latin-1").encode())
@example(b"\xff\xfe")
@example(b'\x00\x1f"\\')
def test_a_blob_is_decoded_from_each_of_its_forms(data):
    literal = data.decode("utf-8", "surrogateescape")
    texts = [
        json.dumps(list(data)).encode(),
        json.dumps(base64.b64encode(data).decode()).encode(),
        json.dumps(literal, ensure_ascii=False).encode("utf-8", "surrogateescape"),
        json.dumps(data.decode("latin-1")).encode(),
    ]
    for text in texts:
        operation = decoded("PUT", "/backup-jobs/J/chunk/U/7", put_chunk(data, text))
        assert bytes(operation.data.data) == data
        assert (operation.chunk_index, operation.length) == (7, len(data))


def test_the_length_alone_selects_a_reading():
    assert (
        bytes(
            decoded("PUT", "/backup-jobs/J/object/N/put-object", b'{"InlineChunk":"aGVs","length":3}').inline_chunk.data
        )
        == b"hel"
    )
    assert (
        bytes(
            decoded(
                "PUT", "/backup-jobs/J/object/N/put-object", b'{"InlineChunk":"aGVs","length":"4"}'
            ).inline_chunk.data
        )
        == b"aGVs"
    )


def test_without_length_and_checksum_the_blob_is_the_text_itself():
    operation = decoded("PUT", "/backup-jobs/J/object/N/put-object", b'{"InlineChunk": "aGVs"}')
    assert bytes(operation.inline_chunk.data) == b"aGVs"


def test_a_blob_that_fits_no_reading_is_left_to_the_service():
    operation = decoded("PUT", "/backup-jobs/J/chunk/U/0", put_chunk(b"other", b'"aGVs"'))
    assert bytes(operation.data.data) == b"aGVs"


def test_a_metadata_blob_is_selected_by_its_own_length_and_checksum():
    body = json.dumps(
        {
            "checksum": "ab" * 32,
            "checksum-algorithm": "SUMMARY",
            "MetadataBlob": base64.b64encode(b"\xff\x00").decode(),
            "metadata-blob-length": "2",
            "metadata-checksum": hashlib.sha256(b"\xff\x00").hexdigest(),
            "metadata-checksum-algorithm": "SHA256",
            "metadata-string": "m",
        }
    ).encode()
    operation = decoded("PUT", "/backup-jobs/J/object/U/complete", body)
    assert bytes(operation.metadata_blob.data) == b"\xff\x00"
    assert (operation.metadata_blob_length, operation.metadata_string) == (2, "m")


def test_a_list_request_is_a_get_with_a_body():
    operation = decoded("GET", "/restore-jobs/J/objects/list", b'{"max-results":"7","next-token":"t"}')
    assert (operation.max_results, operation.next_token) == (7, "t")
    operation = decoded("GET", "/backup-jobs/", b'{"maxResults":3,"createdAfter":"2025-03-04T05:06:07"}')
    assert (operation.max_results, operation.by_created_after) == (3, 1741064767)


@pytest.mark.parametrize("body", [b"", b"{}", b' {"x-unknown": 1} '])
def test_a_list_without_arguments_has_none(body):
    assert decoded("GET", "/restore-jobs/J/objects/list", body).max_results is None


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_an_object_without_content_can_be_put(body):
    assert decoded("PUT", "/backup-jobs/J/object/N/put-object", body).inline_chunk is None


def test_the_content_type_may_have_parameters():
    headers = [("content-type", "Application/JSON; charset=utf-8")]
    body = put_chunk(b"hi", b'"hi"')
    assert bytes(decoded("PUT", "/backup-jobs/J/chunk/U/0", body, headers=headers).data.data) == b"hi"


def test_a_raw_body_labelled_json_stays_raw_if_members_are_in_the_query():
    """Only AWS.jl puts nothing into the query."""
    data = b'{"Data": "not this"}'
    checksum = hashlib.sha256(data).hexdigest()
    query = f"length={len(data)}&checksum={checksum}&checksum-algorithm=SHA256"
    operation = decoded("PUT", "/backup-jobs/J/chunk/U/0", data, query=query)
    assert bytes(operation.data.data) == data


def test_a_signature_in_the_query_is_no_argument():
    operation = decoded("PUT", "/backup-jobs/J/chunk/U/0", put_chunk(b"hi", b'"hi"'), query="X-Amz-Date=x")
    assert bytes(operation.data.data) == b"hi"


def test_raw_data_under_the_wrong_content_type_is_refused():
    with pytest.raises(IllegalArgumentException, match="raw body must not have Content-Type application/json"):
        decoded("PUT", "/backup-jobs/J/object/N/put-object", b'{"somebody": "data"}')
    with pytest.raises(IllegalArgumentException, match="the body must be a JSON object"):
        decoded("PUT", "/backup-jobs/J/object/N/put-object", b"somebody's data")
    with pytest.raises(IllegalArgumentException, match="the body must be a JSON object"):
        decoded("PUT", "/backup-jobs/J/object/N/put-object", b"[1]")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"length":"x"}', "Length: 'x' must be an integer"),
        (b'{"length":1.5}', "Length: 1.5 must be an integer"),
        (b'{"length":true}', "Length: True must be an integer"),
        (b'{"length":{}}', "Length: {} must be"),
        (b'{"length":-1,"Data":""}', "Length: -1 must be between"),
        (b'{"Data":[256]}', "Data must be an array of integers 0 to 255"),
        (b'{"Data":["1"]}', "Data must be an array of integers 0 to 255"),
        (b'{"Data":{}}', "Data must be a text or an array of integers"),
        (b'{"checksum":"x","Data":"x","length":1}', "Checksum: 'x'"),
        (b'{"checksum":"' + b"ab" * 32 + b'","length":1,"checksum-algorithm":"SHA256"}', "Data is required"),
        (b"{}", "is required"),
        (b'{"Data":"\xff"', "the body must be a JSON object"),
        (b'{"Data":"\xff"} x', "the body must be a JSON object"),
        (b'["\xff"]', "the body must be a JSON object"),
        (b"[" * 100_000, "the body must be a JSON object"),
        (b'"\xff' + b"[" * 100_000, "the body must be a JSON object"),
    ],
)
def test_a_wrong_argument_is_named(body, message):
    with pytest.raises(IllegalArgumentException) as caught:
        decoded("PUT", "/backup-jobs/J/chunk/U/0", body)
    assert message in caught.value.message


def test_query_and_body_must_not_contradict():
    with pytest.raises(IllegalArgumentException, match="MaxResults: 6 must be the same in query and body"):
        decoded("GET", "/restore-jobs/J/objects/list", b'{"max-results":6}', query="max-results=5")
    body = b'{"max-results":5,"next-token":"t"}'
    operation = decoded("GET", "/restore-jobs/J/objects/list", body, query="max-results=5")
    assert (operation.max_results, operation.next_token) == (5, "t")


def test_the_control_plane_uses_its_own_errors():
    with pytest.raises(InvalidParameterValueException, match="MaxResults: 'x' must be an integer"):
        decoded("GET", "/backup-jobs/", b'{"maxResults":"x"}')


@given(st.binary(max_size=40))
def test_any_body_is_an_operation_or_an_error_of_the_api(body):
    for name, path in zip(BLOBS, ("chunk/U/0", "object/N/put-object", "object/U/complete"), strict=True):
        try:
            operation = decoded("PUT", f"/backup-jobs/J/{path}", body)
        except IllegalArgumentException:
            continue
        assert operation.declaration.name == name


def test_the_body_may_be_as_long_as_the_limit_for_this_form():
    request = Request("PUT", "/backup-jobs/J/chunk/U/0", "", JSON)
    limits = Limits(request_document_blob_bytes_max=77)
    head = decode_head(match(request.method, request.path), request, limits, content_type=JSON[0][1])
    assert head.body_bytes_max == 77


def read(text, *, length=None, digest=None, bytes_max=MIB):
    return bytes(decode_blob(msgspec.Raw(text), length=length, digest=digest, bytes_max=bytes_max).data)


@given(st.text(max_size=200), st.booleans())
def test_a_text_is_its_utf8(text, escaped):
    assert read(json.dumps(text, ensure_ascii=escaped).encode("utf-8", "replace")) == text.encode("utf-8", "replace")


@pytest.mark.parametrize("tail", range(4))
def test_no_piece_ends_within_an_escape(tail):
    """The text is long enough for many pieces, with a surrogate pair wherever a piece may end."""
    text = "a" * tail + "\U0001f600\n\\é" * 20_000
    for escaped in (True, False):
        assert read(json.dumps(text, ensure_ascii=escaped).encode()) == text.encode()


@given(st.binary(max_size=300), st.integers(8, 70))
def test_every_reading_in_small_pieces(data, piece_bytes):
    before = julia.PIECE_BYTES
    julia.PIECE_BYTES = piece_bytes
    try:
        for text in (base64.b64encode(data).decode(), data.decode("latin-1")):
            for written in (json.dumps(text), json.dumps(text).replace("/", "\\/")):
                assert read(written.encode(), length=len(data), digest=sha256(data)) == data
        assert read(json.dumps(list(data)).encode()) == data
        assert read(json.dumps(list(data), separators=(" ,\n", ":")).encode()) == data
    finally:
        julia.PIECE_BYTES = before


@pytest.mark.parametrize(
    "text", [b"[256]", b"[-1]", b"[[1],[2]]", b'["1,2"]', b"[1,null]", b"[{}]", b"7", b"{}", b"[1.5]"]
)
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="must be"):
        read(text)


def test_a_blob_is_decoded_up_to_one_byte_beyond_the_limit():
    assert len(read(b'"' + b"a" * 1000 + b'"', bytes_max=10)) == 11
    assert len(read(json.dumps([7] * 100_000).encode(), bytes_max=10)) == 11


def finish(body, path=PUT_OBJECT):
    head = decode_head(match("PUT", path), Request("PUT", path, "", []), Limits(), content_type="application/json")
    return head, lambda: head.finish(Payload(body))


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


def test_bytes_beyond_ascii_survive_the_escape():
    line = bytes(range(0x21, 0x100))
    assert escape_line(line).isascii()
    assert restore_url(escape_line(line)) == line
    body = b"GET / HTTP/1.1\r\nx: \xff\r\n"
    assert escape_line(body) == body
    assert restore_url(b"/%~2f%~zz%~") == b"/%~2f%~zz%~"
