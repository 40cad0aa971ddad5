"""Sizes and durations as people write and read them: `64MiB`, `1.5G`, `90s`, `30m`.

A size is a number of bytes. A duration is a number of seconds. Calendar time is in `core.time`.
"""

from __future__ import annotations

import re

SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,6})?) ?([KMGT]?)(?:I?B)?", re.ASCII | re.IGNORECASE)
SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?(ms|s|m|h|d)", re.ASCII)
DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_size(text: str) -> int:
    """The bytes of a text such as `500K`, `64MiB` or `1.5 GB`; every unit is a power of 1024. Raises ValueError."""
    match = SIZE.fullmatch(text)
    if match is None:
        raise ValueError("a size is a number with K, M, G or T after it")
    number, unit = match[1], SIZE_UNITS[match[2].upper()]
    return round(float(number) * unit) if "." in number else int(number) * unit


def parse_duration(text: str) -> float:
    """The seconds of a text such as `500ms`, `90s`, `30m`, `2h` or `1d`. Raises ValueError."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise ValueError("a duration is a number and ms, s, m, h or d, such as 30m")
    return float(match[1]) * DURATION_UNITS[match[2]]


def size_text(count: float) -> str:
    """A number of bytes with one decimal and its unit: `1.5 MiB`."""
    for name in ("TiB", "GiB", "MiB", "KiB"):
        if count >= SIZE_UNITS[name[0]]:
            return f"{count / SIZE_UNITS[name[0]]:.1f} {name}"
    return f"{count:.0f} B"
