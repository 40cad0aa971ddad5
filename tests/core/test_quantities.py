"""Sizes and durations as people write and read them."""

from __future__ import annotations

import pytest

from cryostore.core.limits import KIB, MIB
from cryostore.core.quantities import parse_duration, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("500", 500),
        ("500B", 500),
        ("2K", 2 * KIB),
        ("2 k", 2 * KIB),
        ("64MiB", 64 * MIB),
        ("64 MiB", 64 * MIB),
        ("20mb", 20 * MIB),
        ("1.5G", 1536 * MIB),
        ("1TiB", 1 << 40),
    ],
)
def test_a_size(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "much", "-5", "+5", "1e3", "inf", "5X", "5 KK", "5i", "\u0665", "1.", "MiB"])
def test_no_size(text):
    with pytest.raises(ValueError, match="a size is a number"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("500ms", 0.5), ("90s", 90), ("30 m", 1800), ("1.5h", 5400), ("1d", 86_400)]
)
def test_a_duration(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-5s", "5S", "1e3s", "s", "5 min", "\u0665s", "1h30m"])
def test_no_duration(text):
    with pytest.raises(ValueError, match="a duration is a number"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 1024, "1.5 MiB"), (1 << 42, "4.0 TiB")],
)
def test_a_size_as_text(count, text):
    assert size_text(count) == text
