"""Single values as text in a path, a query or a header: integers, booleans, timestamps, choices, texts.

The declared type chooses the conversion, both ways. Not here: rules about values (`cryostore.model.rules`),
percent-encoding (`percent`), JSON (`document`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cryostore.core.time import iso_text, parse_timestamp
from cryostore.model.operation import Timestamp

INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

Kind = Any
"""A declared type: a class, a Literal, a list or dict of such, or the NewType Timestamp."""
Value = Any
"""A value of a declared type."""
Parse = Callable[[str], Value]


def parse_integer(text: str) -> int:
    """Parse decimal digits with an optional minus sign. Raises ValueError for other text."""
    if not INTEGER.fullmatch(text):
        raise ValueError("must be an integer")
    return int(text)


def parse_boolean(text: str) -> bool:
    """Parse `true` and `1`, `false` and `0`, in any case. Raises ValueError for other text."""
    value = BOOLEANS.get(text.lower())
    if value is None:
        raise ValueError("must be true or false")
    return value


def parse_time(text: str) -> float:
    """Parse ISO 8601 or epoch seconds. Raises ValueError for other text, and for dates that do not exist."""
    try:
        return round(parse_timestamp(text), 6)  # the sum of seconds and fraction may be one bit off
    except ValueError:
        raise ValueError("must be a timestamp: ISO 8601 or epoch seconds") from None


def parser(kind: Kind) -> Parse | None:
    """Return the parser for values of a declared type; None if the text itself is the value."""
    if kind is Timestamp:
        return parse_time
    return {int: parse_integer, bool: parse_boolean}.get(kind)


def format_value(kind: Kind, value: Value) -> str:
    """Return the text of a value of a declared type."""
    if kind is Timestamp:
        return iso_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
