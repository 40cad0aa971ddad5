"""Parser of one HTTP/1.1 response at a time, for the subset of HTTP that the measured servers use."""

from __future__ import annotations

import re

from bench.load.payload import SUFFIX_BYTES

HEAD_BYTES_MAX = 64 * 1024
ERROR_BYTES_KEPT = 300
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


class ResponseError(Exception):
    """The server sent a response that cannot be measured."""


class Response:
    """A response that is fed until it is complete. Keeps the length, the end and (for errors) the start of the body."""

    __slots__ = ("_head", "_remaining", "body_bytes", "closes", "complete", "start", "status", "tail")

    def __init__(self) -> None:
        self._head = b""
        self._remaining = -1
        self.status = 0
        self.body_bytes = 0
        self.tail = b""
        self.start = b""
        self.complete = False
        self.closes = False

    def feed(self, data: memoryview) -> None:
        """Parse received bytes. Raises ResponseError for anything but one response with a Content-Length."""
        if self._remaining < 0:
            self._head += bytes(data)
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                if len(self._head) > HEAD_BYTES_MAX:
                    raise ResponseError("the answer's head does not end")
                return
            self._read_head(self._head[: end + 2])
            data = memoryview(self._head)[end + 4 :]
        if len(data) > self._remaining:
            raise ResponseError("more bytes came than the answer has")
        self._take_body(data)

    def _read_head(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 "):
            raise ResponseError(f"no HTTP/1.1 answer: {head[:40]!r}")
        self.status = int(head[9:12])
        self.closes = CLOSE.search(head) is not None
        match = LENGTH.search(head)
        if match:
            self._remaining = int(match[1])
        elif self.status in (204, 304):
            self._remaining = 0
        else:
            raise ResponseError(f"status {self.status} without a Content-Length")

    def _take_body(self, data: memoryview) -> None:
        size = len(data)
        self._remaining -= size
        self.body_bytes += size
        if size >= SUFFIX_BYTES:
            self.tail = bytes(data[-SUFFIX_BYTES:])
        elif size:
            self.tail = (self.tail + bytes(data))[-SUFFIX_BYTES:]
        if not self.is_success and len(self.start) < ERROR_BYTES_KEPT:
            self.start += bytes(data[:ERROR_BYTES_KEPT])
        self.complete = self._remaining == 0

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300
