"""Spans of time as people write them on a command line: `90s`, `30m`, `2h`, `1d`."""

from __future__ import annotations

import re

import click

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
PATTERN = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", re.ASCII)


def duration_seconds(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """The callback of an option: the seconds of a text such as 30m; None if the option is left out."""
    if text is None:
        return None
    match = PATTERN.fullmatch(text)
    if match is None:
        raise click.BadParameter("a duration is a number and s, m, h or d, such as 30m")
    return float(match[1]) * SECONDS[match[2]]
