"""Signatures: botocore is the oracle, and no signed byte can change."""

from __future__ import annotations

import dataclasses
import hashlib
from unittest import mock
from urllib.parse import quote, unquote_to_bytes

import pytest
from botocore.utils import normalize_url_path
from hypothesis import given
from hypothesis import strategies as st

from cryostore.core.digest import Payload
from cryostore.model import OPERATIONS
from cryostore.model.errors import (
    IllegalArgumentException,
    InvalidSignatureException,
    ModelError,
    SignatureError,
    UnrecognizedClientException,
)
from cryostore.wire import sigv4
from cryostore.wire.message import Request
from cryostore.wire.request import encode
from cryostore.wire.sigv4 import UNSIGNED_PAYLOAD, Credentials
from support.requests import botocore_signer, strategies

NOW = 1_741_064_767_000
KEY = "AKIAEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
OURS = Credentials(KEY, SECRET)
HOST = ("host", botocore_signer.HOST)
seconds = st.integers(0, 4_102_444_800).map(lambda value: value * 1000)


def addressed(operation):
    request = encode(operation)
    return dataclasses.replace(request, headers=[HOST, *request.headers])


def by_botocore(operation, *, now_ms=NOW, service=None, **options):
    service = service or operation.declaration.api.value
    options.setdefault("unsigned_payload", operation.declaration.unsigned_payload)
    request = encode(operation)
    return botocore_signer.signed(
        request, access_key_id=KEY, secret=SECRET, region="local-1", service=service, now_ms=now_ms, **options
    )


def by_us(operation, *, now_ms=NOW, service=None, **options):
    service = service or operation.declaration.api.value
    return sigv4.sign(addressed(operation), OURS, region="local-1", service=service, now_ms=now_ms, **options)


def check(request, declaration, *, now_ms=NOW, secret=SECRET, region=None):
    """All checks of the server."""
    signature = sigv4.read_signature(request)
    if signature.access_key_id != KEY:
        raise UnrecognizedClientException("unknown")
    body = request.body if signature.needs_body else None
    sigv4.verify(request, signature, secret, now_ms=now_ms, region=region, declaration=declaration, body=body)
    sigv4.verify_payload(signature, declaration, request.body)


START_OBJECT = OPERATIONS["StartObject"].input(backup_job_id="J", object_name="a/b c", throw_on_duplicate=True)
PUT_CHUNK = OPERATIONS["PutChunk"].input(
    backup_job_id="J",
    upload_id="U",
    chunk_index=3,
    data=Payload(b"data"),
    length=4,
    checksum="Om6weQjRb6wT/Q1l6ovC9crufuJzjsTKvW9tt2rvPvw=",
    checksum_algorithm="SHA256",
)
GET_CHUNK = OPERATIONS["GetChunk"].input(storage_job_id="J", chunk_token="T")


@given(strategies.operations(), seconds)
def test_signatures_of_botocore_are_accepted(operation, now_ms):
    check(by_botocore(operation, now_ms=now_ms), operation.declaration, now_ms=now_ms)


@given(strategies.operations(), seconds)
def test_signatures_of_botocore_with_the_body_are_accepted(operation, now_ms):
    request = by_botocore(operation, now_ms=now_ms, unsigned_payload=False)
    assert request.header("x-amz-content-sha256") is None
    check(request, operation.declaration, now_ms=now_ms)


@given(strategies.operations().filter(lambda operation: not operation.declaration.body), seconds)
def test_presigned_requests_of_botocore_are_accepted(operation, now_ms):
    request = encode(operation)
    if len(request.body):
        return  # botocore moves a document into the query, which is another request
    request = by_botocore(operation, now_ms=now_ms, presign=60, unsigned_payload=False)
    check(request, operation.declaration, now_ms=now_ms + 60_000)


@given(strategies.operations(), seconds)
def test_we_sign_exactly_as_botocore_does(operation, now_ms):
    unsigned = operation.declaration.unsigned_payload
    payload_hash = UNSIGNED_PAYLOAD if unsigned else None
    ours = by_us(operation, now_ms=now_ms, payload_hash=payload_hash, send_hash=unsigned)
    theirs = by_botocore(operation, now_ms=now_ms)
    assert dict(ours.headers) == dict(theirs.headers)


@given(strategies.operations("GetChunk", "ListObjects", "DescribeBackupJob"), seconds)
def test_we_presign_exactly_as_botocore_does(operation, now_ms):
    theirs = by_botocore(operation, now_ms=now_ms, presign=77, unsigned_payload=False)
    ours = sigv4.presign(
        addressed(operation),
        OURS,
        region="local-1",
        service=operation.declaration.api.value,
        now_ms=now_ms,
        expires_seconds=77,
    )
    assert sorted(ours.query.split("&")) == sorted(theirs.query.split("&"))


@given(strategies.operations())
def test_our_signatures_are_accepted(operation):
    for payload_hash in (None, UNSIGNED_PAYLOAD if operation.declaration.unsigned_payload else None):
        check(by_us(operation, payload_hash=payload_hash), operation.declaration)


@given(strategies.operations())
def test_our_presigned_requests_are_accepted(operation):
    options = {"region": "local-1", "service": operation.declaration.api.value, "now_ms": NOW}
    request = addressed(operation)
    for payload_hash in (UNSIGNED_PAYLOAD, request.body.sha256.hex()):
        check(sigv4.presign(request, OURS, **options, payload_hash=payload_hash), operation.declaration)


def test_signing_again_replaces_the_signature():
    once = by_us(PUT_CHUNK)
    again = sigv4.sign(once, OURS, region="local-1", service="backup-storage", now_ms=NOW + 1000)
    check(again, PUT_CHUNK.declaration, now_ms=NOW + 1000)
    assert len(again.headers_named("authorization")) == len(again.headers_named("x-amz-date")) == 1


def test_a_request_without_a_host_is_not_signed():
    with pytest.raises(ValueError, match="without a host header"):
        sigv4.sign(encode(GET_CHUNK), OURS, region="r", service="s", now_ms=NOW)


def test_credentials_do_not_show_their_secret():
    assert SECRET not in repr(OURS)
    assert "token" not in repr(Credentials(KEY, SECRET, "token"))


@given(strategies.operations(), st.data())
def test_no_signed_byte_can_change(operation, data):
    """One bit of method, path, query, signed header or signature: refused."""
    request = data.draw(st.sampled_from([by_botocore(operation), by_us(operation)]))
    signature = sigv4.read_signature(request)
    place = data.draw(st.sampled_from(["method", "path", "query", "header"]))
    if place == "header":
        names = [name for name, _ in request.headers if name in signature.signed_headers or name == "authorization"]
        name = data.draw(st.sampled_from(sorted(names)))
        headers = [(key, _with_flipped_bit(value, data) if key == name else value) for key, value in request.headers]
        changed = dataclasses.replace(request, headers=headers)
    else:
        value = getattr(request, place)
        if not value:
            return
        changed = dataclasses.replace(request, **{place: _with_flipped_bit(value, data)})
    if _same(request, changed):
        return
    with pytest.raises(ModelError):
        check(changed, operation.declaration)


@given(strategies.operations(), st.data())
def test_no_bit_of_a_signed_body_can_change(operation, data):
    request = by_us(operation)
    if not len(request.body):
        return
    changed = bytearray(request.body.data)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    request.body = Payload(bytes(changed))
    with pytest.raises(InvalidSignatureException, match="the body does not have the SHA-256"):
        check(request, operation.declaration)


def _with_flipped_bit(text, data):
    """The text with one bit of one character changed, still printable ASCII."""
    candidates = [
        (index, chr(ord(character) ^ 1 << bit))
        for index, character in enumerate(text)
        for bit in range(7)
        if "!" <= chr(ord(character) ^ 1 << bit) <= "~"
    ]
    index, character = data.draw(st.sampled_from(candidates))
    return text[:index] + character + text[index + 1 :]


def _same(request, changed):
    """Whether the change is one of spelling only, such as the case of an escape in the query."""
    return _spelled_out(request) == _spelled_out(changed)


def _spelled_out(request):
    pairs = [tuple(map(unquote_to_bytes, pair.partition("=")[::2])) for pair in request.query.split("&")]
    return request.method, request.path, sorted(pairs), request.headers


@pytest.mark.parametrize("name", ["x-amz-extra", "x-amz-content-sha256", "x-amz-date"])
def test_an_added_amz_header_is_refused(name):
    request = by_botocore(GET_CHUNK)
    request.headers.append((name, hashlib.sha256(b"").hexdigest()))
    with pytest.raises(SignatureError):
        check(request, GET_CHUNK.declaration)


def test_an_added_other_header_is_not_covered():
    request = by_botocore(GET_CHUNK)
    request.headers += [("x-forwarded-for", "10.0.0.1"), ("via", "1.1 proxy")]
    check(request, GET_CHUNK.declaration)


def test_the_wrong_secret_is_refused():
    with pytest.raises(InvalidSignatureException, match="the signature does not match: check the secret"):
        check(by_botocore(GET_CHUNK), GET_CHUNK.declaration, secret="other")


@pytest.mark.parametrize("skew_seconds", [-901, 901])
def test_the_error_for_a_wrong_clock_has_the_servers_time(skew_seconds):
    with pytest.raises(InvalidSignatureException) as caught:
        check(by_botocore(GET_CHUNK), GET_CHUNK.declaration, now_ms=NOW + skew_seconds * 1000)
    moment = "20250304T052108Z" if skew_seconds > 0 else "20250304T045106Z"
    assert f"signed at 20250304T050607Z, the server's time is {moment}" in caught.value.message


@pytest.mark.parametrize("skew_seconds", [-900, 900])
def test_a_clock_may_be_off_by_fifteen_minutes(skew_seconds):
    check(by_botocore(GET_CHUNK), GET_CHUNK.declaration, now_ms=NOW + skew_seconds * 1000)


def test_a_presigned_request_expires():
    request = by_botocore(GET_CHUNK, presign=60)
    with pytest.raises(InvalidSignatureException, match="Signature expired: signed at 20250304T050607Z"):
        check(request, GET_CHUNK.declaration, now_ms=NOW + 60_001)
    with pytest.raises(InvalidSignatureException, match="Signature not yet current"):
        check(request, GET_CHUNK.declaration, now_ms=NOW - 900_001)


def test_the_scope_must_name_the_service_of_the_operation():
    request = by_botocore(GET_CHUNK, service="backup")
    with pytest.raises(InvalidSignatureException, match="service must be backup-storage, not 'backup'"):
        check(request, GET_CHUNK.declaration)


def test_a_pinned_region_must_be_the_scopes():
    request = by_botocore(GET_CHUNK)
    check(request, GET_CHUNK.declaration, region="local-1")
    with pytest.raises(InvalidSignatureException, match="region must be eu-1, not 'local-1'"):
        check(request, GET_CHUNK.declaration, region="eu-1")


def test_only_declared_operations_may_leave_their_payload_unsigned():
    check(by_us(PUT_CHUNK, payload_hash=UNSIGNED_PAYLOAD), PUT_CHUNK.declaration)
    request = by_us(START_OBJECT, payload_hash=UNSIGNED_PAYLOAD)
    with pytest.raises(InvalidSignatureException, match="the payload of StartObject must be signed"):
        check(request, START_OBJECT.declaration)


def test_an_unsigned_payload_that_was_not_announced_is_accepted_where_declared():
    """Without the hash header, either the hash or UNSIGNED-PAYLOAD may have been signed."""
    request = by_us(PUT_CHUNK, payload_hash=UNSIGNED_PAYLOAD, send_hash=False)
    signature = sigv4.read_signature(request)
    assert signature.needs_body
    sigv4.verify(request, signature, SECRET, now_ms=NOW, declaration=PUT_CHUNK.declaration)
    request = by_us(START_OBJECT, payload_hash=UNSIGNED_PAYLOAD, send_hash=False)
    with pytest.raises(InvalidSignatureException):
        check(request, START_OBJECT.declaration)


def test_a_hash_in_upper_case_is_a_hash():
    request = by_us(PUT_CHUNK, payload_hash=PUT_CHUNK.data.sha256.hex().upper())
    check(request, PUT_CHUNK.declaration)


def test_a_presigned_request_without_a_hash_has_an_empty_body():
    request = sigv4.presign(addressed(START_OBJECT), OURS, region="local-1", service="backup-storage", now_ms=NOW)
    with pytest.raises(InvalidSignatureException, match="the body does not have"):
        check(request, START_OBJECT.declaration)


def test_host_and_date_must_be_signed():
    signed = by_botocore(GET_CHUNK)
    signature = sigv4.read_signature(signed)
    for names, message in (
        (("x-amz-date",), "the header host must be signed"),
        (("host",), "the header x-amz-date must be signed"),
        (("host", "x-absent", "x-amz-date"), "the signed header 'x-absent' is not in the request"),
    ):
        changed = dataclasses.replace(signature, signed_headers=names)
        with pytest.raises(InvalidSignatureException, match=message):
            sigv4.verify(signed, changed, SECRET, now_ms=NOW, body=signed.body)
    signed.headers = [("date" if name == "x-amz-date" else name, value) for name, value in signed.headers]
    changed = dataclasses.replace(signature, signed_headers=("host",))
    with pytest.raises(InvalidSignatureException, match="the header date must be signed"):
        sigv4.verify(signed, changed, SECRET, now_ms=NOW, body=signed.body)


def test_our_clients_may_hold_a_session_token_as_botocores_do():
    """Other servers than this one accept session tokens."""
    credentials = Credentials(KEY, SECRET, "token/+=")
    options = {"region": "local-1", "service": "backup-storage", "now_ms": NOW}
    ours = sigv4.sign(addressed(GET_CHUNK), credentials, **options, send_hash=False)
    assert dict(ours.headers) == dict(by_botocore(GET_CHUNK, token="token/+=").headers)
    ours = sigv4.presign(addressed(GET_CHUNK), credentials, **options, expires_seconds=60)
    theirs = by_botocore(GET_CHUNK, token="token/+=", presign=60)
    assert sorted(ours.query.split("&")) == sorted(theirs.query.split("&"))


def test_a_session_token_is_refused_clearly():
    request = by_botocore(GET_CHUNK, token="token")
    with pytest.raises(UnrecognizedClientException, match="session tokens are not supported"):
        check(request, GET_CHUNK.declaration)
    request = by_botocore(GET_CHUNK, token="token", presign=60)
    with pytest.raises(UnrecognizedClientException, match="session tokens are not supported"):
        check(request, GET_CHUNK.declaration)


@pytest.mark.parametrize("path", ["/backup-jobs//object/x", "/backup-jobs/J/object/..", "/backup-jobs/./object/x"])
def test_a_path_that_the_signer_normalised_is_refused_with_an_error_of_the_api(path):
    """botocore signs a path without empty and dot segments, and sends one with them (A.4): genuine, but not served."""
    request = Request("PUT", path, "", [], Payload())
    request = botocore_signer.signed(
        request, access_key_id=KEY, secret=SECRET, region="local-1", service="backup-storage", now_ms=NOW
    )
    with pytest.raises(IllegalArgumentException, match="the path: .* must not have empty or dot segments"):
        check(request, START_OBJECT.declaration)
    with pytest.raises(InvalidSignatureException, match="does not match"):
        check(request, START_OBJECT.declaration, secret="other")


def test_a_name_with_raw_slashes_is_signed_unchanged():
    request = Request("PUT", "/backup-jobs/J/object//a//b", "", [HOST], Payload())
    signed = sigv4.sign(request, OURS, region="local-1", service="backup-storage", now_ms=NOW)
    check(signed, START_OBJECT.declaration)


@pytest.mark.parametrize("path", ["/backup-jobs/J/object/a~", "/backup-jobs/J/object/~b/c d\xc3\xa9"])
def test_a_tilde_may_be_encoded_as_awsjl_does(path):
    request = Request("PUT", path, "", [HOST], Payload(b"{}"))
    as_awsjl = lambda raw: quote(raw.encode("latin-1"), safe="/-_.").replace("~", "%7E")  # noqa: E731 - one expression
    with mock.patch("cryostore.wire.sigv4._path_text", as_awsjl):
        signed = sigv4.sign(request, OURS, region="local-1", service="backup-storage", now_ms=NOW)
    assert signed != sigv4.sign(request, OURS, region="local-1", service="backup-storage", now_ms=NOW)
    check(signed, START_OBJECT.declaration)
    signed.path = path.replace("~", "%7E")
    with pytest.raises(InvalidSignatureException):
        check(signed, START_OBJECT.declaration)


def test_the_date_header_may_stand_for_the_amz_date():
    request = encode(GET_CHUNK)
    request.headers.append(("date", "Tue, 04 Mar 2025 05:06:07 GMT"))
    request = botocore_signer.signed(
        request, access_key_id=KEY, secret=SECRET, region="local-1", service="backup-storage", now_ms=NOW
    )
    assert request.header("x-amz-date") is None
    check(request, GET_CHUNK.declaration)


def test_a_signing_key_depends_on_secret_day_region_and_service():
    keys = {
        sigv4._signing_key(*parts)
        for parts in [
            ("s", "20250304", "r", "v"),
            ("t", "20250304", "r", "v"),
            ("s", "20250305", "r", "v"),
            ("s", "20250304", "q", "v"),
            ("s", "20250304", "r", "w"),
        ]
    }
    assert len(keys) == 5


def test_the_signing_key_of_the_published_example():
    key = sigv4._signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20120215", "us-east-1", "iam")
    assert key.hex() == "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"


WIRE = st.characters(max_codepoint=255)


def test_the_canonical_request_is_that_of_the_specification():
    text = sigv4._request_text(
        "PUT",
        sigv4._path_text("/backup-jobs/J/object/a%2Fb~ c"),
        "b=2&a=x%2fy&a=1&c",
        [("host", " h "), ("x-amz-date", "20250304T050607Z"), ("x-a", "1  2"), ("x-a", "3\t4"), ("z", "unsigned")],
        ("host", "x-a", "x-amz-date"),
        "HASH",
    )
    assert text == (
        b"PUT\n/backup-jobs/J/object/a%252Fb~%20c\na=1&a=x%2Fy&b=2&c=\n"
        b"host:h\nx-a:1 2,3 4\nx-amz-date:20250304T050607Z\n\nhost;x-a;x-amz-date\nHASH"
    )


def test_no_two_paths_have_a_spelling_in_common():
    paths = ["/~", "/%7E", "/%257E", "/%7e", "/a"]
    spellings = [spelling for path in paths for spelling in sigv4._path_spellings(path)]
    assert len(set(spellings)) == len(spellings) == 6


def test_a_header_keeps_the_bytes_that_only_look_like_spaces():
    """0x85 and 0xA0 are spaces to Python, but the second byte of a UTF-8 character on the wire."""
    values = sigv4._header_values([("a", " \xc3\x85  \xc3\xa0 ")], ["a"])
    assert values == {"a": "\xc3\x85 \xc3\xa0"}


@given(st.text(WIRE), st.text(WIRE), st.lists(st.text(WIRE)))
def test_any_request_has_a_canonical_form(path, query, values):
    headers = [("h", value) for value in [*values, "x"]]
    assert sigv4._request_text("GET", path, query, headers, ("h",), "HASH").startswith(b"GET\n")


@given(st.lists(st.sampled_from(["", ".", "..", "a", "%2E", "b"]), max_size=8).map("/".join).map("/{}".format))
def test_a_path_is_normalised_as_botocore_does(path):
    assert sigv4._normalised_path(path) == normalize_url_path(path)


@pytest.mark.parametrize("query", ["a=1&b=2", "b=2&a=1", "a=%31&b=2", "b=2&%61=1"])
def test_the_canonical_query_is_independent_of_its_encoding(query):
    assert sigv4._query_text(query) == "a=1&b=2"
