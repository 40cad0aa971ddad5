"""Time: the text forms that clients send, and milliseconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.core.time import FrozenClock, iso_text, milliseconds, parse_timestamp, seconds, wall_clock

MOMENT = 1_516_925_490.087


@pytest.mark.parametrize(
    "text",
    [
        "1516925490.087",
        "1.516925490087e9",
        "2018-01-26T00:11:30.087Z",
        "2018-01-26T00:11:30.087",
        "2018-01-26T00:11:30.087000Z",
        "2018-01-26t01:11:30.087+01:00".replace("t", "T"),
        "2018-01-25T19:11:30.087-0500",
        "2018-01-26 00:11:30.087Z",
    ],
)
def test_every_form_has_the_same_value(text):
    """ISO 8601 with or without fraction and zone (then UTC), and epoch seconds."""
    assert parse_timestamp(text) == pytest.approx(MOMENT, abs=1e-6)


@pytest.mark.parametrize("text", ["2018-01-26", "2018-01-26T00:00", "2018-01-26T00:00:00Z", "1516924800"])
def test_shorter_forms(text):
    """Omitted parts are zero."""
    assert parse_timestamp(text) == 1_516_924_800


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "NaN",
        "inf",
        "1e99",
        "99999999999999",
        "2018-13-01T00:00:00Z",
        "2018-02-30",
        "2018-01-26T25:00:00Z",
        "\u0662",
    ],
)
def test_other_texts_are_refused(text):
    """Any other text is a ValueError, never another error or a wrong time."""
    with pytest.raises(ValueError, match="."):
        parse_timestamp(text)


@given(st.integers(min_value=0, max_value=253_402_300_799_999))
def test_milliseconds_survive_the_wire(moment):
    """A time in milliseconds is unchanged after conversion to seconds or ISO text and back."""
    assert milliseconds(seconds(moment)) == moment
    assert milliseconds(parse_timestamp(iso_text(seconds(moment)))) == moment


def test_a_frozen_clock_moves_only_by_advance():
    """It can also go back, as real clocks sometimes do."""
    clock = FrozenClock(1000)
    clock.advance(500)
    assert clock() == 1500
    clock.advance(-1000)
    assert clock() == 500


def test_wall_clock_counts_in_milliseconds():
    """The real time is between the year of this test and 2100."""
    assert 1_700_000_000_000 < wall_clock() < 4_102_444_800_000
