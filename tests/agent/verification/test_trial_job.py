"""Trial job: it leaves neither a recovery point nor an open job, and detects a store that returns other bytes."""

from __future__ import annotations

import pytest

from cryostore.agent.archive.recovery_points import list_points
from cryostore.agent.verification.resource_status import RESOURCE_ARN, resource_statuses, run_trial_job
from cryostore.client import pages
from cryostore.core.errors import CryostoreError
from cryostore.core.time import wall_clock
from cryostore.model.jobs import ListBackupJobs
from cryostore.model.objects import ListObjects
from support.requests.calls import CountedCall

COVERS = ("agent/verification/resource_status.py",)


class Losing:
    """A store that lists no objects."""

    def __init__(self, inner):
        self.inner = inner

    def call(self, operation):
        answer = self.inner.call(operation)
        return type(answer)(object_list=[]) if isinstance(operation, ListObjects) else answer


def trials(call):
    return [job for job in pages.items(call, ListBackupJobs()) if job.resource_arn.startswith(RESOURCE_ARN.format(""))]


def test_a_trial_job_writes_reads_back_and_aborts(store):
    points, before = len(list(list_points(store))), len(trials(store))
    counted = CountedCall(store)
    run_trial_job(counted, "Default")
    assert counted.counts["GetChunk"] >= 1
    assert len(list(list_points(store))) == points
    assert len(trials(store)) == before + 1
    assert {job.state for job in trials(store)} == {"ABORTED"}
    assert not any(
        each.resource_arn.startswith(RESOURCE_ARN.format("")) for each in resource_statuses(store, wall_clock())
    )


def test_other_bytes_from_the_store_are_an_error_and_the_job_is_aborted(store):
    with pytest.raises(CryostoreError, match="the store returned other bytes than were written"):
        run_trial_job(Losing(store), "Default")
    assert {job.state for job in trials(store)} == {"ABORTED"}
