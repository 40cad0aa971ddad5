"""Requests: the server decodes what the client encodes, and errors name the wrong argument."""

from __future__ import annotations

import pytest
from hypothesis import given

from cryostore.core.digest import Payload
from cryostore.core.limits import Limits
from cryostore.model import OPERATIONS
from cryostore.model.chunks import PutChunk
from cryostore.model.errors import (
    IllegalArgumentException,
    InvalidParameterValueException,
    MissingParameterValueException,
)
from cryostore.model.objects import ListObjects, NotifyObjectComplete, PutObject, StartObject
from cryostore.model.operation import Document
from cryostore.wire.message import Request
from cryostore.wire.request import decode_head, encode
from cryostore.wire.route import match
from support.requests import strategies

LIMITS = Limits()
HEX = "ab" * 32


def decoded(request, limits=LIMITS):
    head = decode_head(match(request.method, request.path), request, limits)
    body = request.body or Payload()
    assert len(body) <= head.body_bytes_max
    return head.finish(body)


def put_chunk(query, path="/backup-jobs/J/chunk/U/0"):
    return Request("PUT", path, query, [], Payload(b"x"))


@given(strategies.operations())
def test_every_operation_is_decoded_to_itself(operation):
    assert decoded(encode(operation)) == operation


@given(strategies.operations())
def test_a_request_is_ascii_and_its_path_holds_no_empty_or_dot_segments(operation):
    request = encode(operation)
    assert (request.path + request.query).isascii()
    assert not {"", ".", ".."} & set(request.path.strip("/").split("/"))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("length=x&checksum=y", "Length: 'x' must be an integer"),
        ("length=1_0", "Length: '1_0' must be an integer"),
        ("length=%D9%A1", "must be an integer"),
        ("length=" + "9" * 5000, "must be an integer"),
        ("length=-1", "Length: -1 must be between 0 and 67108864"),
        ("length=1&length=1", "Length must be given once"),
        ("length=1&l%65ngth=1", "Length must be given once"),
        ("length=1&checksum=%zz", "Checksum: '%zz' must be percent-encoded"),
        ("length=1&checksum=%ff", "Checksum: '%ff' must be valid UTF-8"),
        ("length=1&checksum=abc&checksum-algorithm=SHA256", "64 hex digits or 44 characters of base64"),
        (f"length=1&checksum={HEX}&checksum-algorithm=MD5", "ChecksumAlgorithm: 'MD5' must be one of SHA256"),
        (f"length=1&checksum={HEX}", "ChecksumAlgorithm is required"),
        ("", "Length is required"),
    ],
)
def test_a_wrong_head_is_refused_before_the_body_with_member_value_and_rule(query, message):
    request = put_chunk(query)
    with pytest.raises(IllegalArgumentException) as caught:
        decode_head(match(request.method, request.path), request, LIMITS)
    assert message in caught.value.message


def test_a_plus_sign_in_a_query_is_a_plus_sign():
    """Base64 from a client that forgot to encode it keeps its value."""
    checksum = "+/" * 21 + "8="
    operation = decoded(put_chunk(f"length=1&checksum={checksum}&checksum-algorithm=SHA256"))
    assert operation.checksum == checksum


def test_unknown_query_members_are_ignored_even_malformed_ones():
    query = f"length=1&checksum={HEX}&checksum-algorithm=SHA256&x-id=PutChunk&%zz=%ff&&=&length2"
    assert decoded(put_chunk(query)).length == 1


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "1"])
def test_booleans_in_a_query_are_read_leniently(text):
    request = Request("PUT", "/backup-jobs/J/object/N/put-object", f"throwOnDuplicate={text}", [], Payload())
    assert decoded(request).throw_on_duplicate is True


def test_an_invalid_boolean_is_refused():
    request = Request("PUT", "/backup-jobs/J/object/N/put-object", "throwOnDuplicate=yes", [], Payload())
    with pytest.raises(IllegalArgumentException, match="ThrowOnDuplicate: 'yes' must be true or false"):
        decoded(request)


@pytest.mark.parametrize(
    "text",
    ["2025-03-04T05%3A06%3A07.890000Z", "2025-03-04T05:06:07.89", "1741064767.89", "2025-03-04T06:06:07.890+01:00"],
)
def test_timestamps_in_a_query_may_be_iso_or_epoch_seconds(text):
    operation = decoded(Request("GET", "/restore-jobs/J/objects/list", f"created-after={text}", []))
    assert operation.created_after == 1741064767.89


@pytest.mark.parametrize("text", ["yesterday", "2025-02-30T00:00:00Z", "1e99", "2025-03-04T05:06:07+99:99", ""])
def test_an_invalid_timestamp_is_refused(text):
    with pytest.raises(IllegalArgumentException, match="CreatedAfter: .* must be a timestamp"):
        decoded(Request("GET", "/restore-jobs/J/objects/list", f"created-after={text}", []))


def test_the_control_plane_answers_wrong_arguments_with_its_own_errors():
    with pytest.raises(InvalidParameterValueException, match="MaxResults: 0 must be between 1 and 1000"):
        decoded(Request("GET", "/backup-vaults/", "maxResults=0", []))
    with pytest.raises(MissingParameterValueException, match="BackupVaultName is required"):
        decoded(Request("PUT", "/backup-jobs", "", [], Payload(b"{}")))


def test_an_empty_label_is_refused_by_its_rule():
    with pytest.raises(IllegalArgumentException, match="ObjectName: '' must be 1 to 1024 bytes long"):
        decoded(Request("PUT", "/backup-jobs/J/object/", "", []))


BODILESS = [one.name for one in OPERATIONS.values() if not one.body and not one.at(Document)]


@given(strategies.operations(*BODILESS))
def test_a_small_body_on_an_operation_without_one_is_ignored(operation):
    """AWS.jl sends `{}` on GET and DELETE."""
    request = encode(operation)
    request.body = Payload(b"{}")
    assert decoded(request) == operation
    request.headers.append(("content-type", "application/json"))
    assert decoded(request) == operation


def test_the_limit_of_a_body_is_that_of_its_member():
    limits = Limits(chunk_bytes_max=1000, metadata_blob_bytes_max=500)
    query = f"length=1&checksum={HEX}&checksum-algorithm=SHA256"
    request = put_chunk(query)
    assert decode_head(match(request.method, request.path), request, limits).body_bytes_max == 1000
    request = Request("PUT", "/backup-jobs/J/object/U/complete", f"checksum={HEX}&checksum-algorithm=SUMMARY", [])
    assert decode_head(match(request.method, request.path), request, limits).body_bytes_max == 500
    request = Request("PUT", "/backup-jobs/J/object/N", "", [])
    assert decode_head(match(request.method, request.path), request, limits).body_bytes_max == 1024 * 1024


def test_the_body_is_checked_against_the_limits_as_well():
    request = put_chunk(f"length=1&checksum={HEX}&checksum-algorithm=SHA256")
    head = decode_head(match(request.method, request.path), request, Limits(chunk_bytes_max=4))
    with pytest.raises(IllegalArgumentException, match="Data: .* must be 0 to 4 bytes long"):
        head.finish(Payload(b"12345"))


def test_a_request_has_the_same_members_as_that_of_the_sdks():
    request = encode(
        PutObject(
            backup_job_id="J",
            object_name="a/b~c é",
            metadata_string="x y",
            inline_chunk=Payload(b"data"),
            inline_chunk_length=4,
            throw_on_duplicate=True,
        )
    )
    assert request.path == "/backup-jobs/J/object/a%2Fb~c%20%C3%A9/put-object"
    assert request.query == "length=4&metadata-string=x%20y&throwOnDuplicate=true"
    assert request.headers == [("content-type", "application/octet-stream")]


def test_an_operation_with_a_document_always_sends_one():
    request = encode(StartObject(backup_job_id="J", object_name="N"))
    assert bytes(request.body.data) == b"{}"
    assert request.headers == [("content-type", "application/json")]


def test_an_operation_without_a_body_sends_none():
    request = encode(ListObjects(storage_job_id="J", max_results=5, created_after=1741064767.89))
    assert request.query == "created-after=2025-03-04T05%3A06%3A07.890Z&max-results=5"
    assert (request.headers, len(request.body)) == ([], 0)


def test_an_empty_metadata_blob_with_a_length_is_present():
    request = encode(
        NotifyObjectComplete(
            backup_job_id="J",
            upload_id="U",
            object_checksum=HEX,
            object_checksum_algorithm="SUMMARY",
            metadata_blob=Payload(),
            metadata_blob_length=0,
        )
    )
    assert decoded(request).metadata_blob == Payload()


def test_an_empty_chunk_is_present():
    request = put_chunk(f"length=0&checksum={HEX}&checksum-algorithm=SHA256")
    request.body = Payload()
    operation = decoded(request)
    assert isinstance(operation, PutChunk)
    assert operation.data == Payload()
