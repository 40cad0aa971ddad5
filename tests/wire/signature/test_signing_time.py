"""The time of signing as text."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.wire.signature import signing_time

seconds = st.integers(0, 4_102_444_800)


@given(seconds)
def test_a_moment_comes_back_to_the_second(value):
    text = signing_time.basic_text(value * 1000 + 999)
    assert signing_time.parse_basic(text) == signing_time.date_header_ms(text) == value * 1000


@given(seconds)
def test_an_http_date_is_read(value):
    assert signing_time.date_header_ms(email.utils.formatdate(value, usegmt=True)) == value * 1000


def test_a_date_of_no_zone_is_universal_time():
    assert signing_time.date_header_ms("Tue, 04 Mar 2025 05:06:07 -0000") == 1741064767000


@pytest.mark.parametrize("text", ["", "20250304", "20250304T050607", "20251304T050607Z", "2025-03-04T05:06:07Z", "x"])
def test_another_text_is_refused(text):
    with pytest.raises(ValueError):
        signing_time.parse_basic(text)


@pytest.mark.parametrize("text", ["", "yesterday", "20251304T050607Z", "Tue, 99 Mar 2025 05:06:07 GMT"])
def test_another_date_is_refused(text):
    with pytest.raises(ValueError):
        signing_time.date_header_ms(text)
