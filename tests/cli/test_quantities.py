"""Sizes and durations in options of the command line, and times in results."""

from __future__ import annotations

import time

import click
import pytest

from cryostore.cli.quantities import duration_seconds, size_bytes, time_text
from cryostore.core.errors import ConfigurationError


def test_a_duration_as_an_option():
    texts = ("90s", "30m", "1.5h", "1d", None)
    assert [duration_seconds(None, None, text) for text in texts] == [90, 1800, 5400, 86_400, None]
    with pytest.raises(click.BadParameter, match="such as 30m"):
        duration_seconds(None, None, "soon")


def test_a_size_as_an_option():
    assert size_bytes("1.5K") == 1536
    with pytest.raises(ConfigurationError, match="invalid size 'much'") as refused:
        size_bytes("much")
    assert "such as 20M" in refused.value.hint


def test_a_time_is_shown_in_the_local_time_zone(monkeypatch):
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert time_text(1_700_000_000.9) == "2023-11-15 00:13:20"
        assert time_text(None) == "1970-01-01 02:00:00"
    finally:
        monkeypatch.undo()
        time.tzset()
