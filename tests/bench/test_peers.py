"""The peers' requests are what their servers understand; fio's output is read by its own clock."""

from __future__ import annotations

import pytest
from bench.__main__ import arguments, chosen
from bench.payload import Payload
from bench.peers import fio
from bench.peers.files import Nginx, Rclone


@pytest.mark.parametrize(("server", "method"), [(Nginx(), b"PUT"), (Rclone(), b"POST")])
def test_reads_ask_for_what_was_written(server, method):
    payload = Payload(4096)
    written = server.write_plan("put-chunk", payload, 10, 4)
    read = server.read_plan(payload, 10, 2)
    assert [head.split()[0] for head in written.heads] == [method] * 10
    assert [head.split()[1] for head in read.heads] == [head.split()[1] for head in written.heads]
    assert len(set(written.heads)) == 10
    assert read.tails == written.tails
    assert (read.answer_bytes, read.is_read, written.is_read) == (4096, True, False)
    assert all(b"Content-Length: 4096\r\n" in head for head in written.heads)


def test_fio_counts_until_its_fsync_is_done():
    output = 'fio: a warning\n{"jobs": [{"write": {"io_bytes": 500000000, "runtime": 2000, "bw_bytes": 1}}]}'
    assert fio.parse(output) == pytest.approx(250.0)


def test_quick_runs_the_same_cases_with_less():
    full, quick = chosen(arguments([])), chosen(arguments(["--quick"]))
    assert [case.name for case in full] == [case.name for case in quick]
    assert all(small.requests < large.requests for small, large in zip(quick, full, strict=True))
    assert all(case.requests >= case.connections for case in quick)


def test_one_case_may_be_chosen():
    assert [case.name for case in chosen(arguments(["--case", "put-chunk-4kib-8"]))] == ["put-chunk-4kib-8"]
