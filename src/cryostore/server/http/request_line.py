"""Request lines with bytes beyond ASCII, in a form that the parser lets pass, and back."""

from __future__ import annotations

import re

NOT_ASCII = re.compile(rb"[\x80-\xff]")
DISGUISED = re.compile(rb"%~([89A-F][0-9A-F])")


def disguised(data: bytes) -> bytes:
    """The bytes that begin a request, with those beyond ASCII in their first line in a form the parser lets pass."""
    end = data.find(b"\n")
    line = data if end < 0 else data[:end]
    return data if line.isascii() else NOT_ASCII.sub(_disguise, line) + data[len(line) :]


def revealed(url: bytes) -> bytes:
    """The path and query as they came in."""
    return DISGUISED.sub(_reveal, url) if b"%~" in url else url


def _disguise(match: re.Match[bytes]) -> bytes:
    return b"%%~%02X" % match[0][0]


def _reveal(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode())
