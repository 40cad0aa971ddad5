"""Responses: the client decodes what the server encodes."""

from __future__ import annotations

import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cryostore.core.compression import Codec, CompressedPayload, Compression
from cryostore.core.digest import Payload, sha256
from cryostore.core.limits import MIB
from cryostore.model import OPERATIONS
from cryostore.model.chunks import GetChunkOutput
from cryostore.model.errors import ResourceNotFoundException, ServiceInternalException
from cryostore.model.jobs import CommitBackupJobOutput
from cryostore.model.objects import GetObjectMetadataOutput, ListObjectsOutput
from cryostore.model.operation import Nothing
from cryostore.wire import error
from cryostore.wire.message import Response
from cryostore.wire.response import accepts_zstd, decode, encode
from support.requests import strategies

outputs = st.sampled_from(list(OPERATIONS.values())).flatmap(
    lambda declaration: st.tuples(st.just(declaration), strategies.outputs(declaration))
)


@given(outputs)
def test_every_output_is_decoded_to_itself(pair):
    declaration, output = pair
    assert decode(declaration, encode(declaration, output)) == output


@given(outputs)
def test_every_answer_has_a_status_a_content_type_and_headers_of_single_bytes(pair):
    declaration, output = pair
    response = encode(declaration, output)
    assert response.status == declaration.status
    assert response.header("content-type") in ("application/json", "application/octet-stream")
    for name, value in response.headers:
        assert name.isascii()
        value.encode("latin-1")
        assert not {"\r", "\n"} & set(value)


def test_an_empty_output_is_an_empty_object():
    response = encode(OPERATIONS["DeleteObject"], Nothing())
    assert bytes(response.body.data) == b"{}"
    assert response.headers == [("content-type", "application/json")]


def test_absent_members_are_not_written():
    response = encode(OPERATIONS["ListObjects"], ListObjectsOutput(object_list=[]))
    assert json.loads(response.body.data) == {"ObjectList": []}


def test_a_commit_has_status_202():
    output = CommitBackupJobOutput(backup_job_id="J", state="RUNNING")
    assert encode(OPERATIONS["CommitBackupJob"], output).status == 202


def test_a_chunk_is_a_raw_body_with_headers():
    data = Payload(b"chunk")
    output = GetChunkOutput(data=data, length=5, checksum="c", checksum_algorithm="SHA256")
    response = encode(OPERATIONS["GetChunk"], output)
    assert response.body is data
    assert response.headers == [
        ("content-type", "application/octet-stream"),
        ("x-amz-data-length", "5"),
        ("x-amz-checksum", "c"),
        ("x-amz-checksum-algorithm", "SHA256"),
    ]


def compressed(data: bytes) -> CompressedPayload:
    codec, encoded = Compression(level=2).compress(data)
    assert codec == Codec.ZSTD
    return CompressedPayload(encoded, sha256=sha256(data))


def test_a_compressed_chunk_is_sent_compressed_and_decompressed_by_the_client():
    data = b"chunk " * 10_000
    output = GetChunkOutput(data=compressed(data), length=len(data), checksum="c", checksum_algorithm="SHA256")
    response = encode(OPERATIONS["GetChunk"], output)
    assert response.header("content-encoding") == "zstd"
    assert len(response.body) < len(data)
    answer = decode(OPERATIONS["GetChunk"], response)
    assert bytes(answer.data.data) == data
    assert answer.data.sha256 == sha256(data)


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        (None, False),
        ("", False),
        ("identity", False),
        ("gzip, deflate", False),
        ("*", False),
        ("zstd", True),
        ("gzip;q=0.5, ZSTD", True),
        ("zstd;q=0.3", True),
        ("gzip, zstd; q=0", False),
        ("zstd;q=0.000", False),
        ("zstdx", False),
    ],
)
def test_zstd_is_accepted_only_if_it_is_named(header, taken):
    assert accepts_zstd(header) is taken


def chunk_answer(body: bytes, encoding: str) -> Response:
    headers = [("x-amz-data-length", "3"), ("x-amz-checksum", "c"), ("x-amz-checksum-algorithm", "SHA256")]
    return Response(200, [*headers, ("content-encoding", encoding)], Payload(body))


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"abc", "zstd"),
        (b"", "zstd"),
        (b"abc", "gzip"),
        (bytes(compressed(bytes(129 * MIB)).data), "zstd"),
        (bytes(compressed(b"a" * 1000).data[:-3]), "zstd"),
    ],
    ids=["no frame", "nothing", "another encoding", "a bomb", "cut short"],
)
def test_a_body_that_cannot_be_decoded_is_a_failure_of_the_server(body, encoding):
    with pytest.raises(ServiceInternalException, match="the answer to GetChunk cannot be read"):
        decode(OPERATIONS["GetChunk"], chunk_answer(body, encoding))


def of_a_proxy(response: Response) -> Response:
    """An answer that a proxy compressed without declaring the length of the content."""
    encoder = zstandard.ZstdCompressor().compressobj()
    body = encoder.compress(response.body.data) + encoder.flush()
    return Response(response.status, [*response.headers, ("content-encoding", "zstd")], Payload(body))


def test_an_answer_that_a_proxy_compressed_is_decoded():
    listing = ListObjectsOutput(object_list=[], next_token="token")
    answer = of_a_proxy(encode(OPERATIONS["ListObjects"], listing))
    assert decode(OPERATIONS["ListObjects"], answer) == listing
    failure = of_a_proxy(error.encode(ResourceNotFoundException("there is no such job"), None, "id"))
    with pytest.raises(ResourceNotFoundException, match="there is no such job"):
        decode(OPERATIONS["ListObjects"], failure)
    cut = Response(200, answer.headers, Payload(answer.body.data[:-3]))
    with pytest.raises(ServiceInternalException, match="the answer to ListObjects cannot be read"):
        decode(OPERATIONS["ListObjects"], cut)


def test_a_metadata_string_is_utf8_in_its_header():
    response = encode(OPERATIONS["GetObjectMetadata"], GetObjectMetadataOutput(metadata_string="é€"))
    assert response.header("x-amz-metadata-string").encode("latin-1") == "é€".encode()


def test_metadata_that_was_not_set_has_no_headers():
    response = encode(OPERATIONS["GetObjectMetadata"], GetObjectMetadataOutput())
    assert response.headers == [("content-type", "application/octet-stream")]
    assert decode(OPERATIONS["GetObjectMetadata"], response) == GetObjectMetadataOutput()


def test_an_empty_blob_with_a_length_is_present():
    output = GetObjectMetadataOutput(metadata_blob=Payload(), metadata_blob_length=0)
    response = encode(OPERATIONS["GetObjectMetadata"], output)
    assert decode(OPERATIONS["GetObjectMetadata"], response) == output


def test_header_names_are_compared_without_regard_to_case():
    response = Response(200, [("X-Amz-Data-Length", "3"), ("X-Amz-Checksum", "c")], Payload(b"abc"))
    response.headers.append(("X-AMZ-CHECKSUM-ALGORITHM", "SHA256"))
    assert decode(OPERATIONS["GetChunk"], response).length == 3


def test_an_empty_body_is_an_empty_document():
    assert decode(OPERATIONS["DeleteObject"], Response(204, [], Payload())) == Nothing()


def test_an_error_is_raised_as_the_class_the_server_named():
    response = error.encode(ResourceNotFoundException("gone"), OPERATIONS["GetChunk"].api, "R")
    with pytest.raises(ResourceNotFoundException, match="gone"):
        decode(OPERATIONS["GetChunk"], response)


@pytest.mark.parametrize(
    ("name", "headers", "body"),
    [
        ("PutChunk", [], b"{"),
        ("PutChunk", [], b"{}"),
        ("PutChunk", [], b"[]"),
        ("PutChunk", [], b"<html>"),
        ("PutChunk", [], b"[" * 100_000),
        ("GetChunk", [], b"data without headers"),
        ("GetChunk", [("x-amz-data-length", "x"), ("x-amz-checksum", "c")], b""),
        ("GetObjectMetadata", [("x-amz-metadata-string", "\xff")], b""),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_failure_of_the_server(name, headers, body):
    with pytest.raises(ServiceInternalException, match=f"the answer to {name} cannot be read"):
        decode(OPERATIONS[name], Response(200, headers, Payload(body)))
