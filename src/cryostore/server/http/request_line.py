"""Request lines with bytes beyond ASCII, as AWS.jl sends them: escaped before the strict parser, restored after it."""

from __future__ import annotations

import re

NOT_ASCII = re.compile(rb"[\x80-\xff]")
ESCAPED = re.compile(rb"%~([89A-F][0-9A-F])")


def escape_line(data: bytes) -> bytes:
    """Return the first bytes of a request with the bytes beyond ASCII of their first line escaped."""
    end = data.find(b"\n")
    line = data if end < 0 else data[:end]
    return data if line.isascii() else NOT_ASCII.sub(_escape, line) + data[len(line) :]


def restore_url(url: bytes) -> bytes:
    """Return the path and query as they were received, without the escapes of `escape_line`."""
    return ESCAPED.sub(_restore, url) if b"%~" in url else url


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%~%02X" % match[0][0]


def _restore(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode())
