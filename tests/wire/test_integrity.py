"""Checksums in headers, and bodies that could be altered without detection."""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest

from cryostore.core.digest import Payload
from cryostore.core.limits import Limits
from cryostore.model.errors import IllegalArgumentException
from cryostore.wire.integrity import check_headers, require_integrity
from cryostore.wire.request import decode_head
from cryostore.wire.route import match
from cryostore.wire.sigv4 import UNSIGNED_PAYLOAD, read_signature
from support.requests.raw_http import signed

BODY = b"some bytes"


def text(digest):
    return base64.b64encode(digest).decode()


CHECKSUMS = {
    "content-md5": text(hashlib.md5(BODY).digest()),
    "x-amz-checksum-sha256": text(hashlib.sha256(BODY).digest()),
    "x-amz-checksum-sha1": text(hashlib.sha1(BODY).digest()),
    "x-amz-checksum-crc32": text(zlib.crc32(BODY).to_bytes(4, "big")),
}


def request(*headers, path="/backup-jobs/J/object/N/put-object", query=""):
    return signed("PUT", path, query, *headers, body=BODY, payload_hash=UNSIGNED_PAYLOAD)


@pytest.mark.parametrize("name", CHECKSUMS)
def test_a_checksum_in_a_header_is_honoured(name):
    sent = request((name, CHECKSUMS[name]))
    check_headers(sent, "backup-storage", Payload(BODY))
    with pytest.raises(IllegalArgumentException, match=name):
        check_headers(sent, "backup-storage", Payload(BODY + b"!"))
    for wrong in ("", "x", CHECKSUMS[name] + "=", CHECKSUMS["x-amz-checksum-sha1"][:-2]):
        with pytest.raises(IllegalArgumentException, match=name):
            check_headers(request((name, wrong)), "backup-storage", Payload(BODY))


def test_an_unknown_checksum_is_refused():
    for name in ("x-amz-checksum-crc32c", "x-amz-checksum-crc64nvme", "x-amz-checksum-md6", "x-amz-trailer"):
        with pytest.raises(IllegalArgumentException, match=name):
            check_headers(request((name, "AAAAAA==")), "backup-storage", Payload(BODY))
    twice = [("content-md5", CHECKSUMS["content-md5"])] * 2
    with pytest.raises(IllegalArgumentException, match="once"):
        check_headers(request(*twice), "backup-storage", Payload(BODY))
    check_headers(request(("x-amz-checksum-algorithm", "SHA256")), "backup-storage", Payload(BODY))


def covered(sent, body=BODY, by=UNSIGNED_PAYLOAD, content_type=None):
    head = decode_head(match(sent.method, sent.path), sent, Limits(), content_type=content_type)
    require_integrity(sent, read_signature(sent), by, head, Payload(body))


def test_an_unsigned_body_without_a_checksum_is_refused():
    with pytest.raises(IllegalArgumentException, match="without TLS"):
        covered(request())
    covered(request(), by="0" * 64)
    covered(request(query=f"checksum={hashlib.sha256(BODY).hexdigest()}"))
    for name in ("content-md5", "x-amz-checksum-sha256", "x-amz-checksum-sha1"):
        covered(request((name, CHECKSUMS[name])))
    # altered bytes with the same CRC are easy to make
    with pytest.raises(IllegalArgumentException, match="without TLS"):
        covered(request(("x-amz-checksum-crc32", CHECKSUMS["x-amz-checksum-crc32"])))


def test_a_checksum_that_is_not_signed_protects_nothing():
    sent = request()
    sent.headers.append(("content-md5", CHECKSUMS["content-md5"]))
    with pytest.raises(IllegalArgumentException, match="without TLS"):
        covered(sent)
    # in AWS.jl's form the checksum is in the body itself
    with pytest.raises(IllegalArgumentException, match="without TLS"):
        covered(request(("content-type", "application/json")), content_type="application/json")


def test_an_empty_body_is_accepted_where_the_signed_part_declares_it():
    complete = request(path="/backup-jobs/J/object/U/complete", query=f"checksum={'0' * 64}&checksum-algorithm=SUMMARY")
    covered(complete, b"")
    with pytest.raises(IllegalArgumentException, match="without TLS"):
        covered(complete, b"added on the way")
    with pytest.raises(IllegalArgumentException, match="without TLS"):
        covered(request(), b"")
    covered(request(query="length=0"), b"")
