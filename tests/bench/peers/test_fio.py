"""Output of fio, timed by its own clock."""

from __future__ import annotations

import pytest

from bench.peers import fio


def test_the_rate_includes_the_final_fsync():
    output = 'fio: a warning\n{"jobs": [{"write": {"io_bytes": 500000000, "runtime": 2000, "bw_bytes": 1}}]}'
    assert fio.parse(output) == pytest.approx(250.0)
