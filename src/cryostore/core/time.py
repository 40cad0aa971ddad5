"""Time in whole milliseconds since 1970, UTC, and its text forms.

A clock is a function without arguments, and callers pass it as a parameter. Only `wall_clock` reads the real clock.
"""

from __future__ import annotations

import re
import time as _time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import NewType

Clock = Callable[[], int]
Timestamp = NewType("Timestamp", float)
"""A moment in the API: epoch seconds, with milliseconds as the fraction."""

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

ISO_PATTERN = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(Z|z|[+-]\d\d:?\d\d)?", re.ASCII
)
EPOCH_PATTERN = re.compile(r"-?\d{1,12}(\.\d{1,18})?([eE]\+?\d{1,2})?", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_SECONDS_MIN = -62_135_596_800.0  # the first of the year 1
EPOCH_SECONDS_MAX = 253_402_300_799.999  # the last millisecond of the year 9999


def wall_clock() -> int:
    """Milliseconds since 1970 by this machine's clock."""
    return _time.time_ns() // 1_000_000


class FrozenClock:
    """A clock that moves only by `advance`: for tests."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, milliseconds: int) -> None:
        """Move the clock. A negative number moves it back, as happens to real clocks."""
        self.now_ms += milliseconds


def seconds(milliseconds: int) -> Timestamp:
    """Milliseconds as epoch seconds with a fraction, the form of the API."""
    return Timestamp(milliseconds / SECOND_MS)


def milliseconds(seconds: float) -> int:
    """Epoch seconds of the API as whole milliseconds, rounded."""
    return round(seconds * SECOND_MS)


def span(milliseconds: int) -> str:
    """A time span as text, in the largest unit that fits at least twice: `90 s`, `3 h`."""
    whole = milliseconds // SECOND_MS
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if whole >= 2 * unit:
            return f"{whole // unit} {name}"
    return f"{whole} s"


def parse_timestamp(text: str) -> float:
    """Epoch seconds of an ISO 8601 text, or of a number written as text (A.4). Without a zone, the time is in UTC.

    Raises ValueError, whose message states the rule, for any other text.
    """
    if EPOCH_PATTERN.fullmatch(text):
        value = float(text)
        if abs(value) <= EPOCH_SECONDS_MAX:
            return value
    elif match := ISO_PATTERN.fullmatch(text):
        year, month, day, hour, minute, second, fraction, zone = match.groups()
        offset = UTC
        if zone and zone not in "Zz":
            minutes = int(zone[1:3]) * 60 + int(zone[-2:])
            offset = timezone(timedelta(minutes=minutes if zone[0] == "+" else -minutes))
        whole = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=offset
        )
        return whole.timestamp() + float(f"0.{fraction or 0}")
    raise ValueError("a timestamp is ISO 8601 or epoch seconds")


def iso_text(seconds: float) -> str:
    """Epoch seconds as ISO 8601 text, the form in which SDKs put them into a query string."""
    moment = EPOCH + timedelta(milliseconds=milliseconds(seconds))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
