"""Requests and responses as plain data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.core.digest import Payload
from cryostore.wire.message import Request, Response, header_text, header_value, media_type
from support.requests import strategies


def test_headers_are_found_by_lower_case_name():
    request = Request("GET", "/", "", [("a", "1"), ("b", "2"), ("a", "3")])
    assert (request.header("a"), request.headers_named("a"), request.header("c")) == ("1", ["1", "3"], None)
    response = Response(200, [("X-A", "1")], Payload())
    assert (response.header("x-a"), response.header("x-b")) == ("1", None)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ""),
        ("", ""),
        ("application/json", "application/json"),
        (" Application/JSON ; charset=utf-8", "application/json"),
        ("application/jsonx", "application/jsonx"),
    ],
)
def test_a_media_type_is_lower_case_and_without_parameters(header, expected):
    assert media_type(header) == expected


@given(st.text(strategies.characters))
def test_a_text_in_a_header_is_decoded_to_itself(text):
    value = header_text(text)
    assert value.encode("latin-1") == text.encode()
    assert header_value(value) == text
