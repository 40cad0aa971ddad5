"""Nodes with clocks that are hours wrong: the store uses only the clock of the catalog.

S3 accepts signatures only within minutes of its own clock, so nodes need NTP nevertheless.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from cryostore.core.time import HOUR_MS, SECOND_MS
from support.processes.cluster import Cluster
from support.processes.serving import CRYO
from support.requests.api import new_resource

LIBRARY = "*/faketime/libfaketimeMT.so.1"
HOURS = (7, -7, 0)
APART_SECONDS_MAX = 60


def wrong_by(hours):
    """Return the environment of a process whose clock is wrong by so many hours."""
    found = list(Path("/usr/lib").glob(LIBRARY))
    if not found:
        pytest.skip("libfaketime is not here (Debian: faketime): nodes with wrong clocks were not tried")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": f"{hours:+d}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def test_nodes_with_wrong_clocks_share_a_store(tmp_path):
    """No acknowledged data is lost under load and garbage collection, when one of the nodes is killed."""
    own = {number: wrong_by(hours) for number, hours in enumerate(HOURS) if hours}
    (tmp_path / "blobs").mkdir()
    with contextlib.ExitStack() as opened:
        cluster = Cluster(tmp_path, opened, own=own, blobs=str(tmp_path / "blobs"))
        apis = [cluster.api(number) for number in range(len(HOURS))]
        with cluster.load() as load:
            load.go_on()
            for number, hours in enumerate(HOURS):
                lines = cluster.nodes.logged(number)
                assert [line for line in lines if line["level"] == "error"] == []
                shown_ms = _moment_ms(lines[0]["time"])
                assert abs(shown_ms - time.time() * SECOND_MS - hours * HOUR_MS) < HOUR_MS, "its clock is not wrong"
            cluster.nodes.kill(0)
            load.go_on(2)
            cluster.nodes.start(0)
        start = apis[0].start_operation(resource=new_resource(), idempotency_token="one")
        (job,) = {api.call(start).backup_job_id for api in apis}
        began = [api.job(job).creation_date for api in apis]
        assert len(set(began)) == 1
        assert abs(began[0] - time.time()) < APART_SECONDS_MAX
        for api in apis:  # no window and no idle time-out has expired for any node
            api.put(job, "one", b"1")
            assert api.job(job).state == "RUNNING"
        assert cluster.problems() == []


def test_s3_refuses_a_node_with_a_wrong_clock_and_the_log_says_so(tmp_path):
    with contextlib.ExitStack() as opened:
        cluster = Cluster(tmp_path, opened, count=0)
        ended = subprocess.run(
            [*CRYO, "serve", "--listen", "127.0.0.1:0", "--workers", "1"],
            env=cluster.environment | wrong_by(7),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "clock" in ended.stderr or "Skewed" in ended.stderr, ended.stderr


def _moment_ms(text):
    return datetime.fromisoformat(text).timestamp() * SECOND_MS
