"""Percent-encoding as SDKs do it: all characters except `A-Z a-z 0-9 - _ . ~` are encoded; a plus sign is literal."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

UNRESERVED = re.compile(r"[A-Za-z0-9\-_.~]*", re.ASCII)
STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)


def encode(text: str) -> str:
    """Percent-encode a text, including its slashes."""
    return text if UNRESERVED.fullmatch(text) else quote(text, safe="-_.~")


def decode(text: str) -> str:
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


def canonical(text: str) -> str:
    """Return a key or value of a query in the canonical encoding of signatures."""
    if UNRESERVED.fullmatch(text):
        return text
    return quote(unquote_to_bytes(text.encode("latin-1", "replace")), safe="-_.~")
