"""Requests to nginx and rclone that their servers understand."""

from __future__ import annotations

import pytest
from bench.load.payload import Payload
from bench.peers.file_servers import Nginx, Rclone


@pytest.mark.parametrize(("server", "method"), [(Nginx(), b"PUT"), (Rclone(), b"POST")])
def test_reads_request_the_written_files(server, method):
    payload = Payload(4096)
    written = server.write_plan("put-chunk", payload, 10, 4)
    read = server.read_plan(payload, 10, 2)
    assert [head.split()[0] for head in written.heads] == [method] * 10
    assert [head.split()[1] for head in read.heads] == [head.split()[1] for head in written.heads]
    assert len(set(written.heads)) == 10
    assert read.tails == written.tails
    assert (read.answer_bytes, read.is_read, written.is_read) == (4096, True, False)
    assert all(b"Content-Length: 4096\r\n" in head for head in written.heads)
