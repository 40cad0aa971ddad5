"""Digests: their text forms, SUMMARY, and payloads with cached digests."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.core.digest import Checksum, Form, Payload, digest_text, sha256, summary

ABC = hashlib.sha256(b"abc").digest()


@given(st.binary(min_size=32, max_size=32), st.sampled_from(Form))
def test_text_round_trip(digest, form):
    """Both text forms of a digest read back as the digest and its form."""
    assert Checksum.parse(digest_text(digest, form)) == (digest, form)


def test_hex_is_read_in_both_cases_and_written_in_lower_case():
    """The response repeats the caller's form, in lower case."""
    assert Checksum.parse(ABC.hex().upper()).text() == ABC.hex()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ABC.hex()[:-1],
        ABC.hex() + "0",
        ABC.hex()[:-1] + "g",
        base64.b64encode(ABC).decode()[:-1],
        base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        # 43 characters and padding, but the unused bits of the last character are not zero: a second spelling.
        base64.b64encode(ABC).decode()[:-2] + "1=",
        "\uff10" * 64,
        ABC.hex() + "\n",
    ],
)
def test_other_texts_are_refused(text):
    """Only 64 hex digits and canonical base64 are checksums, and the error says so."""
    with pytest.raises(ValueError, match="64 hex digits or 44 characters"):
        Checksum.parse(text)


def test_summary_is_the_digest_of_the_digests():
    """SUMMARY hashes the concatenated raw digests; without digests it is the SHA-256 of empty input."""
    assert summary([ABC, sha256(b"d")]) == hashlib.sha256(ABC + sha256(b"d")).digest()
    assert summary([]) == hashlib.sha256(b"").digest()


def test_a_payload_hashes_at_most_once_and_on_demand():
    """A payload accepts a known digest, and otherwise computes it at most once."""
    assert Payload(b"abc", sha256=b"known").sha256 == b"known"
    payload = Payload(bytearray(b"abc"))
    assert "sha256" not in vars(payload)
    assert payload.sha256 is payload.sha256
    assert payload.sha256 == ABC


def test_payloads_compare_by_their_bytes():
    """The type of the buffer does not matter, and the repr of a payload does not contain its bytes."""
    assert Payload(memoryview(b"abc")) == Payload(bytearray(b"abc"))
    assert Payload(b"abc") != Payload(b"abd")
    assert Payload(b"abc") != b"abc"
    assert hash(Payload(b"abc")) == hash(Payload(bytearray(b"abc")))
    assert repr(Payload(b"abc")) == "Payload(3 bytes)"
    assert len(Payload()) == 0
