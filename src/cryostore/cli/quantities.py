"""Sizes and durations in options of the command line, and times in results."""

from __future__ import annotations

from contextlib import suppress

import click

from cryostore.core.errors import ConfigurationError
from cryostore.core.quantities import parse_duration, parse_size


def duration_seconds(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """Return the seconds of an option such as `30m`, as its callback; None if the option is left out."""
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def size_bytes(text: str) -> int:
    """Return the bytes of an option such as `20M`. Raises ConfigurationError."""
    try:
        return parse_size(text)
    except ValueError:
        raise ConfigurationError(
            f"invalid size {text!a}", hint="a size is a number with K, M, G or T after it, such as 20M"
        ) from None


def time_text(seconds: float | None) -> str:
    """Return a time of the API in the time zone of this machine; in UTC at the ends of the calendar."""
    from datetime import UTC, datetime

    found = datetime.fromtimestamp(seconds or 0.0, UTC)
    with suppress(OverflowError):
        found = found.astimezone()
    return f"{found:%Y-%m-%d %H:%M:%S}"
