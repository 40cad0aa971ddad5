"""Heartbeat of an open job: regular requests, also after errors, and the backup option `HeartbeatSeconds`."""

from __future__ import annotations

import threading

import pytest

from cryostore.agent.backup.job import (
    HEARTBEAT_SECONDS,
    OPTION_SECONDS_MAX,
    heartbeat,
    heartbeat_option_seconds,
)
from cryostore.core.errors import StorageUnavailableError
from cryostore.model.jobs import HEARTBEATS_MISSED_MAX
from cryostore.model.objects import ListObjects

COVERS = ("agent/backup/job.py",)


@pytest.mark.parametrize("wait_seconds", [0.0, 0.5, 60.0, 300.0, 3000.0])
def test_a_live_run_is_never_silent_long_enough_to_lose_its_job(wait_seconds):
    silent_seconds_max = HEARTBEAT_SECONDS + wait_seconds
    assert HEARTBEATS_MISSED_MAX * heartbeat_option_seconds(wait_seconds) >= silent_seconds_max


def test_the_option_has_a_limit():
    assert heartbeat_option_seconds(1e9) == OPTION_SECONDS_MAX


def test_heartbeats_continue_after_errors_and_end_with_the_context():
    beats, enough = [], threading.Event()

    class Store:
        def call(self, operation):
            beats.append(operation)
            if len(beats) == 3:
                enough.set()
            raise StorageUnavailableError("away")

    with heartbeat(Store(), "JOB", seconds_between=0.001):
        assert enough.wait(10)
    sent = len(beats)
    assert set(map(type, beats)) == {ListObjects}
    assert {beat.storage_job_id for beat in beats} == {"JOB"}
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
    assert len(beats) == sent
