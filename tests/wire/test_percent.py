"""Percent-encoding: lossless, with one canonical form."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.wire import scalar
from support.requests import strategies

COVERS = ("wire/scalar.py",)


@given(st.text(strategies.characters))
def test_every_text_is_decoded_to_itself(text):
    encoded = scalar.percent_encode(text)
    assert encoded.isascii()
    assert scalar.percent_decode(encoded) == text
    assert scalar.canonical_encoding(encoded) == encoded


@given(st.text(strategies.characters))
def test_the_encoding_is_that_of_the_sdks(text):
    assert scalar.percent_encode(text) == urllib.parse.quote(text, safe="-_.~")


@given(st.text(st.characters(max_codepoint=255)))
def test_decoding_any_text_of_the_wire_ends_in_a_text_or_a_value_error(text):
    try:
        scalar.percent_decode(text)
    except ValueError as error:
        assert str(error).startswith("must be")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("a%2fb", "a%2Fb"), ("%41", "A"), ("a+b", "a%2Bb"), ("a b", "a%20b"), ("a=", "a%3D"), ("%", "%25"), ("~", "~")],
)
def test_the_canonical_form_is_independent_of_the_client(text, canonical):
    assert scalar.canonical_encoding(text) == canonical
