"""The signature that a request carries: every malformed one is refused with its reason."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.model.errors import (
    IncompleteSignatureException,
    InvalidSignatureException,
    MissingAuthenticationTokenException,
    SignatureError,
    UnrecognizedClientException,
)
from cryostore.wire.message import Request
from cryostore.wire.signature import (
    EMPTY_HASH,
    UNSIGNED_PAYLOAD,
    basic_text,
    date_header_ms,
    parse_basic,
    read_signature,
)

SIGNATURE = "0123456789abcdef" * 4
CREDENTIAL = "AKIA/20250304/local-1/backup-storage/aws4_request"
PARTS = {"Credential": CREDENTIAL, "SignedHeaders": "host;x-amz-date", "Signature": SIGNATURE}
QUERY = {
    "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
    "X-Amz-Credential": CREDENTIAL.replace("/", "%2F"),
    "X-Amz-Date": "20250304T050607Z",
    "X-Amz-Expires": "60",
    "X-Amz-SignedHeaders": "host",
    "X-Amz-Signature": SIGNATURE,
}
DATE = ("x-amz-date", "20250304T050607Z")


def with_header(parts=PARTS, algorithm="AWS4-HMAC-SHA256", separator=", ", headers=(DATE,)):
    text = separator.join(f"{name}={value}" for name, value in parts.items())
    return Request("GET", "/", "", [("authorization", f"{algorithm} {text}"), *headers])


def with_query(headers=(), **changed):
    members = QUERY | {name.replace("_", "-"): value for name, value in changed.items()}
    query = "&".join(f"{name}={value}" for name, value in members.items() if value is not None)
    return Request("GET", "/", f"max-results=5&{query}", [("host", "h"), *headers])


@pytest.mark.parametrize("separator", [", ", ",", " ,  "])
def test_the_header_is_read(separator):
    signature = read_signature(with_header(separator=separator))
    assert (signature.access_key_id, signature.region, signature.service) == ("AKIA", "local-1", "backup-storage")
    assert signature.scope == "20250304/local-1/backup-storage/aws4_request"
    assert (signature.signed_at_ms, signature.signed_headers) == (1741064767000, ("host", "x-amz-date"))
    assert (signature.signature, signature.payload_hash, signature.presigned) == (SIGNATURE, None, False)
    assert signature.needs_body


def test_the_parts_may_come_in_any_order():
    assert read_signature(with_header(dict(reversed(PARTS.items())))) == read_signature(with_header())


def test_the_query_is_read():
    signature = read_signature(with_query())
    assert (signature.access_key_id, signature.expires_seconds, signature.presigned) == ("AKIA", 60, True)
    assert (signature.payload_hash, signature.needs_body) == (EMPTY_HASH, False)


def test_an_access_key_id_may_contain_slashes():
    assert read_signature(with_header(PARTS | {"Credential": f"a/b/{CREDENTIAL}"})).access_key_id == "a/b/AKIA"


@pytest.mark.parametrize("value", [UNSIGNED_PAYLOAD, EMPTY_HASH])
def test_the_hash_of_the_payload_is_read(value):
    request = with_header(headers=(DATE, ("x-amz-content-sha256", value)))
    assert read_signature(request).payload_hash == value
    assert read_signature(with_query(X_Amz_Content_Sha256=value)).payload_hash == value
    assert read_signature(with_query([("x-amz-content-sha256", value)])).payload_hash == value


def test_an_unsigned_request_is_refused():
    with pytest.raises(MissingAuthenticationTokenException, match="the request is not signed"):
        read_signature(Request("GET", "/", "max-results=5", []))


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (
            with_header(algorithm="AWS4-ECDSA-P256-SHA256"),
            IncompleteSignatureException,
            "must be AWS4-HMAC-SHA256, not",
        ),
        (with_header(algorithm="Basic"), IncompleteSignatureException, "the algorithm must be AWS4-HMAC-SHA256"),
        (with_header({}), IncompleteSignatureException, "has no Credential"),
        (with_header(PARTS | {"Credential": ""}), IncompleteSignatureException, "has no Credential"),
        (with_header({"Credential": CREDENTIAL}), IncompleteSignatureException, "has no SignedHeaders"),
        (with_header(PARTS | {" Signature": "x"}), IncompleteSignatureException, "has two 'Signature'"),
        (with_header(PARTS | {"Credential": "a/b/c/d"}), IncompleteSignatureException, "a credential is ACCESS-KEY"),
        (with_header(PARTS | {"Credential": "//b/c/d"}), IncompleteSignatureException, "a credential is ACCESS-KEY"),
        (
            with_header(PARTS | {"Credential": CREDENTIAL.replace("aws4", "aws3")}),
            InvalidSignatureException,
            "must end with aws4_request, not 'aws3_request'",
        ),
        (
            with_header(PARTS | {"Credential": CREDENTIAL.replace("0304", "0305")}),
            InvalidSignatureException,
            "date '20250305' is not the request's 20250304",
        ),
        (with_header(PARTS | {"SignedHeaders": "x;host"}), IncompleteSignatureException, "must be lower case, sorted"),
        (with_header(PARTS | {"SignedHeaders": "Host"}), IncompleteSignatureException, "must be lower case, sorted"),
        (with_header(PARTS | {"SignedHeaders": "host;host"}), IncompleteSignatureException, "without repetition"),
        (with_header(PARTS | {"SignedHeaders": ";host"}), IncompleteSignatureException, "must be lower case, sorted"),
        (with_header(PARTS | {"Signature": SIGNATURE[1:]}), IncompleteSignatureException, "64 lower-case hex digits"),
        (with_header(PARTS | {"Signature": SIGNATURE.upper()}), IncompleteSignatureException, "64 lower-case hex"),
        (with_header(headers=()), IncompleteSignatureException, "neither an x-amz-date nor a date header"),
        (with_header(headers=(DATE, DATE)), IncompleteSignatureException, "a request has one x-amz-date header"),
        (with_header(headers=[("x-amz-date", "now")]), IncompleteSignatureException, "x-amz-date must have the form"),
        (with_header(headers=[("date", "now")]), IncompleteSignatureException, "the header date must be an HTTP date"),
        (
            with_header(headers=(DATE, ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"))),
            InvalidSignatureException,
            "aws-chunked",
        ),
        (
            with_header(headers=(DATE, ("x-amz-content-sha256", "x"))),
            IncompleteSignatureException,
            "x-amz-content-sha256 must be 64 hex digits or UNSIGNED-PAYLOAD",
        ),
        (
            with_header(headers=(DATE, ("x-amz-security-token", "t"))),
            UnrecognizedClientException,
            "session tokens are not supported",
        ),
        (with_header(headers=(DATE, ("authorization", "x"))), IncompleteSignatureException, "one Authorization header"),
        (with_query([("authorization", "x")]), IncompleteSignatureException, "not in both"),
        (with_query(X_Amz_Algorithm="AWS4"), IncompleteSignatureException, "the algorithm must be"),
        (with_query(X_Amz_Signature=None), IncompleteSignatureException, "the query has no X-Amz-Signature"),
        (with_query(X_Amz_Credential=None), IncompleteSignatureException, "the query has no X-Amz-Credential"),
        (with_query(X_Amz_Credential="%zz"), IncompleteSignatureException, "X-Amz-Credential must be percent-encoded"),
        (with_query(X_Amz_Date="x"), IncompleteSignatureException, "X-Amz-Date must have the form"),
        (with_query(X_Amz_Expires=None), IncompleteSignatureException, "X-Amz-Expires must be between 1 and 604800"),
        (with_query(X_Amz_Expires="0"), IncompleteSignatureException, "X-Amz-Expires must be between 1 and 604800"),
        (with_query(X_Amz_Expires="604801"), IncompleteSignatureException, "X-Amz-Expires must be between"),
        (with_query(X_Amz_Expires="-1"), IncompleteSignatureException, "X-Amz-Expires must be between"),
        (with_query(X_Amz_Expires="60&X-Amz-Expires=61"), IncompleteSignatureException, "has two X-Amz-Expires"),
        (with_query(X_Amz_Security_Token="t"), UnrecognizedClientException, "session tokens are not supported"),
        (with_query(X_Amz_Content_Sha256="x"), IncompleteSignatureException, "x-amz-content-sha256 must be"),
    ],
)
def test_a_malformed_signature_is_refused_with_its_reason(request_, error, message):
    with pytest.raises(error) as caught:
        read_signature(request_)
    assert type(caught.value) is error
    assert message in caught.value.message


@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)))
def test_any_header_and_query_is_a_signature_or_a_signature_error(header, query):
    for request in (
        Request("GET", "/", "", [("authorization", header), DATE]),
        Request("GET", "/", f"X-Amz-Signature={query}", []),
    ):
        with pytest.raises(SignatureError):
            read_signature(request)


seconds = st.integers(0, 4_102_444_800)


@given(seconds)
def test_a_time_is_exact_to_the_second(value):
    text = basic_text(value * 1000 + 999)
    assert parse_basic(text) == date_header_ms(text) == value * 1000


@given(seconds)
def test_an_http_date_is_read(value):
    assert date_header_ms(email.utils.formatdate(value, usegmt=True)) == value * 1000


def test_a_date_without_a_zone_is_utc():
    assert date_header_ms("Tue, 04 Mar 2025 05:06:07 -0000") == 1741064767000


@pytest.mark.parametrize("text", ["", "20250304", "20250304T050607", "20251304T050607Z", "2025-03-04T05:06:07Z", "x"])
def test_an_invalid_time_is_refused(text):
    with pytest.raises(ValueError):
        parse_basic(text)


@pytest.mark.parametrize("text", ["", "yesterday", "20251304T050607Z", "Tue, 99 Mar 2025 05:06:07 GMT"])
def test_an_invalid_date_is_refused(text):
    with pytest.raises(ValueError):
        date_header_ms(text)
