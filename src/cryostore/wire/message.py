"""A request and a response as plain data, not decoded yet.

The rule of this file: texts are as they are on the wire. A path is still percent-encoded, a query is still one text,
and a header value is Latin-1, so that each of its characters is one byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryostore.core.digest import Payload
from cryostore.core.limits import MIB

Headers = list[tuple[str, str]]

ANSWER_BYTES_MAX = 128 * MIB
"""Twice the largest chunk."""


@dataclass(slots=True)
class Request:
    """A request. `path` is raw, `query` has no question mark, header names are lower case.

    `body` is None until it is read. A client refuses an answer longer than `answer_bytes_max`.
    """

    method: str
    path: str
    query: str
    headers: Headers
    body: Payload | None = None
    answer_bytes_max: int = ANSWER_BYTES_MAX

    def header(self, name: str) -> str | None:
        """Return the first value of a header; None if it is absent. `name` is lower case."""
        return next((value for key, value in self.headers if key == name), None)

    def headers_named(self, name: str) -> list[str]:
        """Return all values of a header, in order. `name` is lower case."""
        return [value for key, value in self.headers if key == name]


@dataclass(slots=True)
class Response:
    """A response. Header names keep their case; `header` ignores it."""

    status: int
    headers: Headers
    body: Payload

    def header(self, name: str) -> str | None:
        """Return the first value of a header; None if it is absent. `name` is lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)


def media_type(content_type: str | None) -> str:
    """Return the media type of a Content-Type, in lower case and without parameters; empty if there is none."""
    return content_type.partition(";")[0].strip().lower() if content_type else ""


def header_text(value: str) -> str:
    """Encode a text as a header value: its UTF-8 bytes, one character each."""
    return value if value.isascii() else value.encode().decode("latin-1")


def header_value(text: str) -> str:
    """Decode a header value of `header_text`. Raises UnicodeDecodeError if its bytes are not UTF-8."""
    return text if text.isascii() else text.encode("latin-1").decode()
