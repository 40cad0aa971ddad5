"""Single values as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.model.operation import Timestamp
from cryostore.model.rules import INTEGER_MAX
from cryostore.wire import scalar
from support.requests import strategies

COVERS = ("model/rules.py",)


@given(st.integers(-INTEGER_MAX, INTEGER_MAX))
def test_an_integer_is_parsed_to_itself(value):
    assert scalar.parse_integer(scalar.format_value(int, value)) == value


@given(st.booleans())
def test_a_boolean_is_parsed_to_itself(value):
    assert scalar.parse_boolean(scalar.format_value(bool, value)) is value


@given(strategies.timestamps)
def test_a_timestamp_is_parsed_to_itself_exactly(value):
    assert scalar.parse_time(scalar.format_value(Timestamp, value)) == value


@pytest.mark.parametrize("text", ["", "-", "+1", " 1", "1 ", "1.0", "0x1", "1e3", "1_000", "\u0661", "9" * 20])
def test_a_text_that_is_not_an_integer_is_refused(text):
    with pytest.raises(ValueError, match="must be an integer"):
        scalar.parse_integer(text)


@pytest.mark.parametrize("text", ["", "yes", "2", "tru", " true"])
def test_a_text_that_is_not_a_boolean_is_refused(text):
    with pytest.raises(ValueError, match="must be true or false"):
        scalar.parse_boolean(text)


@given(st.text(st.sampled_from("0123456789-:.TZ+ e"), max_size=30))
def test_any_text_is_a_timestamp_or_refused(text):
    try:
        assert isinstance(scalar.parse_time(text), float)
    except ValueError as error:
        assert str(error) == "must be a timestamp: ISO 8601 or epoch seconds"
