"""A request and a response as plain data, before any meaning is read into them.

The rule of this file: text here is what stood on the wire. A path is still percent-encoded, a query still one text, and
a header value is Latin-1, so that each of its characters is one byte of the wire.
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

    `body` is None while it is not read yet. A client reads no answer that is longer than `answer_bytes_max`.
    """

    method: str
    path: str
    query: str
    headers: Headers
    body: Payload | None = None
    answer_bytes_max: int = ANSWER_BYTES_MAX

    def header(self, name: str) -> str | None:
        """The first value of this header, None if there is none. `name` is lower case."""
        return next((value for key, value in self.headers if key == name), None)

    def headers_named(self, name: str) -> list[str]:
        """All values of this header, in order. `name` is lower case."""
        return [value for key, value in self.headers if key == name]


@dataclass(slots=True)
class Response:
    """A response. Header names are as they are to be written; compare them without regard to case."""

    status: int
    headers: Headers
    body: Payload

    def header(self, name: str) -> str | None:
        """The first value of this header, None if there is none. `name` is lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)


def media_type(content_type: str | None) -> str:
    """The media type of a Content-Type, in lower case and without parameters; empty if there is none."""
    return content_type.partition(";")[0].strip().lower() if content_type else ""


def header_text(value: str) -> str:
    """A text as a header value: its UTF-8 bytes, one character each."""
    return value if value.isascii() else value.encode().decode("latin-1")


def header_value(text: str) -> str:
    """The text that `header_text` made a header value of; raises UnicodeDecodeError if the bytes are not UTF-8."""
    return text if text.isascii() else text.encode("latin-1").decode()
