"""Start of jobs from many threads at once, on a real catalog file: one job of a resource runs, on one base."""

from __future__ import annotations

from itertools import pairwise
from unittest import mock

import pytest

from cryostore.catalog.rows import jobs as job_rows
from cryostore.model.errors import (
    ResourceNotFoundException,
    ThrottlingException,
)
from cryostore.model.recovery_points import DeleteRecoveryPoint
from cryostore.service import lineages as start_job_module
from cryostore.service.lineages import start_job
from cryostore.service.operations import recovery_points
from support.catalogs.catalog_model import RESOURCES, ROOT, VAULT
from support.catalogs.lineage_races import backed_up, outcomes

COVERS = ("service/lineages.py",)


def test_one_of_several_jobs_of_a_resource_runs(model):
    waiting = [model.start() for _ in range(6)]
    found = outcomes(6, lambda number: start_job(model.context, model.row(waiting[number])).state)
    assert sorted(map(str, found)) == sorted(["RUNNING", *[str(ThrottlingException)] * 5])
    assert sorted(model.row(job).state for job in waiting) == ["PENDING"] * 5 + ["RUNNING"]
    for job in waiting:
        job.state = model.row(job).state
    (running,) = model.open_jobs("RUNNING")
    model.put(running, b"a")


def test_jobs_of_different_resources_run_concurrently(model):
    waiting = [model.start(resource) for resource in RESOURCES]
    found = outcomes(2, lambda number: start_job(model.context, model.row(waiting[number])).state)
    assert found == ["RUNNING", "RUNNING"]
    for job in waiting:
        job.state = "RUNNING"


def test_a_job_with_concurrent_first_requests_starts_once(model):
    job = model.start()
    found = outcomes(8, lambda _: start_job(model.context, model.row(job)))
    assert len({(row.state, row.lineage_id, row.generation) for row in found}) == 1
    job.state = "RUNNING"
    assert model.database.read(lambda t: t.row("SELECT count(*), max(next_generation) FROM lineage")) == (1, 2)


def test_a_point_becomes_the_base_or_is_deleted_never_both(model):
    """A job starts on a point while another thread deletes the point."""
    for turn in range(8):
        backed_up(model, b"a", b"%d" % turn)
        point = model.latest(RESOURCES[0])
        job = model.start()

        def act(number, job=job, point=point):
            if number:
                return start_job(model.context, model.row(job)).base_point_id
            arn = model.context.arns.point(point.point_id)
            recovery_points.delete_recovery_point(
                model.context, DeleteRecoveryPoint(backup_vault_name=VAULT, recovery_point_arn=arn), ROOT
            )
            return "deleted"

        deleted, base = outcomes(2, act)
        assert (deleted == "deleted") != (base == point.point_id)
        point.deleting = deleted == "deleted"
        job.state, job.base = "RUNNING", model.points[base] if base else None
        job.view = dict(job.base.view) if base else {}
        model.check()
        if job.view:
            model.commit(job)
        else:
            model.end(job, "stop")
            model.maintain()


def test_rows_of_a_large_failed_job_are_removed_in_small_transactions(model):
    """No other writer waits longer than a batch, and the next job gets ThrottlingException until all is removed."""
    backed_up(model, b"a")
    model.end(model.put(model.run(), *(b"%03d" % number for number in range(50))))
    waiting = model.start()
    with pytest.raises(ThrottlingException, match="taken back"):
        start_job(model.context, model.row(waiting))
    left = [model.database.read(lambda t: t.row("SELECT count(*) FROM object"))[0]]
    while model.dirty():
        with mock.patch.object(start_job_module, "BATCHES_BEFORE_START", 1):
            try:
                start_job(model.context, model.row(waiting))
            except ThrottlingException:
                left.append(model.database.read(lambda t: t.row("SELECT count(*) FROM object"))[0])
    assert max(before - after for before, after in pairwise(left)) <= 2
    model.touch(waiting)


def test_a_job_past_its_start_window_expires_at_its_first_request(model):
    job = model.start()
    model.clock.advance(481 * 60_000)
    assert start_job(model.context, model.row(job)).state == "EXPIRED"
    job.state = "EXPIRED"
    row = model.row(job)
    assert (row.completed_ms, row.message_category) == (model.clock(), "Timeout")
    assert model.database.read(lambda t: t.rows("SELECT * FROM recovery_point")) == []


def test_a_deleted_job_is_not_found(model):
    job = model.row(model.start())
    with pytest.raises(ResourceNotFoundException):
        start_job(model.context, job._replace(job_id="nobody's"))
    assert model.database.read(lambda t: job_rows.running(t, job.vault_id, job.resource_arn)) is None
