"""Secrets on paper: printed lines can be typed in, and the error for a typing mistake names its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.core.errors import ConfigurationError
from cryostore.core.paper import Paper

PAPER = Paper(title="A SECRET 1", name="a secret", comment=("# a comment",), line_bytes=10, end_characters=8)
OTHER = Paper(title="A SECRET 1", name="another", comment=(), line_bytes=10, end_characters=8)


@given(st.binary(max_size=100), st.binary(max_size=40))
def test_a_printed_secret_reads_back(data, stands_for):
    assert PAPER.read(PAPER.write(data, stands_for).encode(), lambda _: stands_for) == data


def test_the_public_value_must_match():
    text = PAPER.write(b"secret", b"public").encode()
    for wrong in (b"other", None):
        with pytest.raises(ConfigurationError, match="END"):
            PAPER.read(text, lambda _, wrong=wrong: wrong)


def test_lines_of_another_kind_are_refused():
    with pytest.raises(ConfigurationError, match="line 01 has a mistake"):
        PAPER.read(OTHER.write(b"secret", b"").encode(), lambda _: b"")


def test_no_error_repeats_the_input():
    first, *rest = PAPER.write(bytes(range(30)), b"").partition("01  ")[2].splitlines()
    typed = "\n".join(["A SECRET 1", f"01  {first[:-1]}X", *rest])
    with pytest.raises(ConfigurationError) as caught:
        PAPER.read(typed.encode(), lambda _: b"")
    assert first[:4] not in caught.value.message + caught.value.hint
