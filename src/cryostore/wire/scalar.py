"""Single values as text in a path, a query or a header: conversion, and percent-encoding.

The declared type chooses the conversion, both ways: integers, booleans, timestamps, choices, texts. Percent-encoding is
that of SDKs: all characters except `A-Z a-z 0-9 - _ . ~` are encoded, and a plus sign is literal. Not here: rules about
values (`cryostore.model.rules`), JSON (`document`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from cryostore.core.time import iso_text, parse_timestamp
from cryostore.model.operation import Timestamp

UNRESERVED = re.compile(r"[A-Za-z0-9\-_.~]*", re.ASCII)
STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)
INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

DeclaredType = Any
"""A declared type: a class, a Literal, a list or dict of such, or the NewType Timestamp."""
Value = Any
"""A value of a declared type."""
Parse = Callable[[str], Value]


def percent_encode(text: str) -> str:
    """Percent-encode a text, including its slashes."""
    return text if UNRESERVED.fullmatch(text) else quote(text, safe="-_.~")


def percent_decode(text: str) -> str:
    """Decode percent-encoded text; `text` is Latin-1, one character for each byte of the wire.

    Raises ValueError, which names the rule, for a percent sign that starts no escape, and for bytes that are not UTF-8.
    """
    if "%" not in text and text.isascii():
        return text
    if STRAY_PERCENT.search(text):
        raise ValueError("must be percent-encoded: '%' is followed by two hex digits")
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeError:
        raise ValueError("must be valid UTF-8") from None


def canonical_encoding(text: str) -> str:
    """Return a key or value of a query in the canonical encoding of signatures."""
    if UNRESERVED.fullmatch(text):
        return text
    return quote(unquote_to_bytes(text.encode("latin-1", "replace")), safe="-_.~")


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


def parser(kind: DeclaredType) -> Parse | None:
    """Return the parser for values of a declared type; None if the text itself is the value."""
    if kind is Timestamp:
        return parse_time
    return {int: parse_integer, bool: parse_boolean}.get(kind)


def format_value(kind: DeclaredType, value: Value) -> str:
    """Return the text of a value of a declared type."""
    if kind is Timestamp:
        return iso_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
