"""Kinds of option values: what each reads, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import MIB
from cryostore.options import option
from cryostore.options.option import choice, duration, flag, number, read_as, shown, size


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        (option.text("X", "a text"), "a", "a"),
        (option.path(), "a/b", Path("a/b")),
        (option.path(), Path("a"), Path("a")),
        (flag(), True, True),
        (flag(), "No", False),
        (choice("a", "b"), "b", "b"),
        (number(0, 9), "+7", 7),
        (number(0), 7, 7),
        (size(0), 5, 5),
        (size(0), "5", 5),
        (size(0), "2MiB", 2 * MIB),
        (duration(1), "90s", 90),
        (duration(0.001), "1.5s", 1500),
        (duration(1, whole=False), "1500ms", 1.5),
        (duration(60), 0, 0),
        (option.address("--listen"), "[::1]:80", ("::1", 80)),
    ],
)
def test_a_valid_value(kind, value, found):
    assert read_as(kind, value, "name") == found


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (option.text("X", "a text"), ""),
        (option.path(), 5),
        (flag(), 1),
        (choice("a", "b"), "c"),
        (number(0, 9), 10),
        (number(0), True),
        (number(0), "1.5"),
        (size(1), 0),
        (size(1), False),
        (size(0), "5 bytes"),
        (duration(1), 5),
        (duration(1), False),
        (duration(1, least_seconds=60), "59s"),
        (option.address("--listen"), 80),
    ],
)
def test_an_invalid_value(kind, value):
    with pytest.raises(ConfigurationError, match="name is .*: it must be"):
        read_as(kind, value, "name", source="here: ")


def test_an_error_shows_no_password():
    assert shown("postgresql://user:secret@host/db") == "'postgresql://...@host/db'"
    assert len(shown("x" * 200)) == 80
