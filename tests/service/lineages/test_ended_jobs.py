"""Ended jobs: commits, stops and roll-backs from many threads at once, on a real catalog file."""

from __future__ import annotations

import pytest

from cryostore.model.errors import (
    JobStateConflictException,
)
from cryostore.model.jobs import CommitBackupJob, StopBackupJob
from cryostore.service.lineages import roll_back_job
from cryostore.service.operations.jobs.commit import commit_backup_job, stop_backup_job
from support.catalogs.catalog_model import ROOT
from support.catalogs.lineage_races import backed_up, outcomes

COVERS = ("service/lineages.py",)


def test_one_of_several_concurrent_commits_succeeds(model):
    """Repetitions of the successful one get its answer; all others get a conflict."""
    job = model.put(model.run(), b"a", b"b")

    def commit(number):
        request = CommitBackupJob(backup_job_id=job.job_id, status_message=f"try {number % 2}")
        return commit_backup_job(model.context, request, ROOT).state

    found = outcomes(8, commit)
    assert {str(found[number]) for number in range(8)} == {"COMPLETED", str(JobStateConflictException)}
    assert len(set(found[::2])) == len(set(found[1::2])) == 1
    job.state = "COMPLETED"
    row = model.row(job)
    assert model.database.read(lambda t: t.rows("SELECT status, object_count FROM recovery_point")) == [
        ("COMPLETED", 2)
    ]
    model.database.write(lambda t: t.run("UPDATE recovery_point SET status = 'DELETING'"))
    model.maintain()
    assert row.state == "COMPLETED"


def test_concurrent_stop_and_commit_have_one_winner(model):
    """Either there is a complete point, or the job is stopped and leaves nothing."""
    for turn in range(6):
        job = model.put(model.run(), b"a", b"%d" % turn)

        def act(number, job=job):
            if number % 2:
                stop_backup_job(model.context, StopBackupJob(backup_job_id=job.job_id), ROOT)
                return "stopped"
            return commit_backup_job(model.context, CommitBackupJob(backup_job_id=job.job_id), ROOT).state

        try:
            outcomes(2, act)
        except Exception as error:  # noqa: BLE001 - a finished job cannot be stopped
            assert "COMPLETED" in str(error)
        job.state = model.row(job).state
        if job.state == "COMPLETED":
            latest = model.database.read(lambda t: t.row("SELECT max(object_count) FROM recovery_point"))
            assert latest == (len(job.view),)
            model.database.write(lambda t: t.run("UPDATE recovery_point SET status = 'DELETING'"))
        model.maintain()
        assert model.row(job).state in {"ABORTED", "COMPLETED"}
        job.state = model.row(job).state


@pytest.mark.parametrize("how", ["stop", "give up"])
def test_concurrent_roll_backs(model, how):
    first = backed_up(model, b"a", b"b", b"c")
    job = model.remove(model.put(model.run(), b"a", b"d", b"e", b"f", parts=3), b"b", b"c")
    model.end(job, how)
    (segment,) = model.dirty()
    assert outcomes(6, lambda _: roll_back_job(model.context, segment, batches_max=1000)) == [True] * 6
    model.see_aborted()
    assert model.dirty() == []
    assert model.database.read(lambda t: t.row("SELECT count(*) FROM object")) == (len(first.view),)
    assert model.database.read(lambda t: t.row("SELECT count(*) FROM chunk_list")) == (0,)
