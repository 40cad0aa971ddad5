"""Request lines with bytes beyond ASCII: escaped and restored without loss."""

from __future__ import annotations

from cryostore.server.http.request_line import escape_line, restore_url


def test_bytes_beyond_ascii_survive_the_escape():
    line = bytes(range(0x21, 0x100))
    assert escape_line(line).isascii()
    assert restore_url(escape_line(line)) == line
    body = b"GET / HTTP/1.1\r\nx: \xff\r\n"
    assert escape_line(body) == body
    assert restore_url(b"/%~2f%~zz%~") == b"/%~2f%~zz%~"
