"""Rules for blob keys. They are the same for every store, so that data can move between stores."""

from __future__ import annotations

import re

SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,255}"
SEGMENT_PATTERN = re.compile(SEGMENT)
KEY_PATTERN = re.compile(rf"{SEGMENT}(?:/{SEGMENT})*")
KEY_CHARACTERS_MAX = 1024


def check_key(key: str) -> str:
    """Return the key. Raises ValueError if it breaks the rules of `BlobStore`."""
    if len(key) > KEY_CHARACTERS_MAX or not KEY_PATTERN.fullmatch(key):
        raise ValueError(f"not a blob key: {key[:80]!r}")
    return key
