"""The time of signing as text: ISO 8601 basic, or the HTTP date of a Date header."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from cryostore.core.time import SECOND_MS

BASIC_PATTERN = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
BASIC_FORMAT = "%Y%m%dT%H%M%SZ"


@lru_cache(maxsize=64)
def parse_basic(text: str) -> int:
    """Parse a text such as 20250304T050607Z to milliseconds. Raises ValueError, which names the rule."""
    if not BASIC_PATTERN.fullmatch(text):
        raise ValueError("must have the form 20250304T050607Z")
    year, month, day = int(text[:4]), int(text[4:6]), int(text[6:8])
    hour, minute, second = int(text[9:11]), int(text[11:13]), int(text[13:15])
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * SECOND_MS


@lru_cache(maxsize=64)
def basic_text(milliseconds: int) -> str:
    """Format milliseconds as ISO 8601 basic, to the second."""
    return datetime.fromtimestamp(milliseconds // SECOND_MS, UTC).strftime(BASIC_FORMAT)


def date_header_ms(text: str) -> int:
    """Parse a Date header, an HTTP date or ISO 8601 basic, to milliseconds. Raises ValueError, which names the rule."""
    if BASIC_PATTERN.fullmatch(text):
        return parse_basic(text)
    try:
        moment = parsedate_to_datetime(text)
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * SECOND_MS
    except (ValueError, TypeError, IndexError, OverflowError):
        raise ValueError("must be an HTTP date or have the form 20250304T050607Z") from None
