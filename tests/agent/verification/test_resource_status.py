"""Backup status of each resource: its age, and open and failed jobs since the newest good recovery point."""

from __future__ import annotations

from contextlib import closing

import pytest

from cryostore.agent.archive.recovery_points import ROLE_ARN, list_points
from cryostore.agent.backup.job import resource_arn
from cryostore.agent.mount.file_system import build_folders
from cryostore.agent.verification.resource_status import resource_statuses, run_trial_job
from cryostore.core.time import DAY_MS, HOUR_MS, milliseconds, wall_clock
from cryostore.model.jobs import GetIncrementalBaseBackup, StartBackupJob, StopBackupJob
from cryostore.service import Caller
from cryostore.service.opening.open import open_service
from support.archives.agent import Runs, write
from support.stores.in_process import opened


@pytest.fixture
def store(tmp_path):
    """A store with one recovery point of the resource `tree`."""
    write(tmp_path / "source", {"file": b"file"})
    with opened(tmp_path / "store", clock=wall_clock) as store:
        Runs(store).backup(tmp_path / "source")
        yield store


def started(store, name="tree"):
    """Open and begin a backup job of a resource; return its id."""
    operation = StartBackupJob(backup_vault_name="Default", resource_arn=resource_arn(name), iam_role_arn=ROLE_ARN)
    job_id = store.call(operation).backup_job_id
    store.call(GetIncrementalBaseBackup(backup_job_id=job_id))
    return job_id


def test_the_age_is_that_of_the_newest_good_point(store):
    (each,) = resource_statuses(store, wall_clock())
    begun = milliseconds(each.last.creation_date)
    assert each.age_ms(begun + 5 * HOUR_MS) == 5 * HOUR_MS
    assert each.age_ms(begun - HOUR_MS) == 0, "the age is not negative if the clock is behind"
    assert each.is_older(begun + 5 * HOUR_MS, 5 * HOUR_MS - 1)
    assert not each.is_older(begun + 5 * HOUR_MS, 5 * HOUR_MS)


def test_a_point_in_the_future_counts_as_old(tmp_path):
    ahead_ms = wall_clock() + 30 * DAY_MS
    write(tmp_path / "source", {"file": b"file"})
    for clock in (lambda: ahead_ms, wall_clock):
        service = open_service(tmp_path / "data", clock=clock)
        with closing(service):
            runs = Runs(service.as_caller(Caller(access_key_id="local", root=True)))
            runs.backup(tmp_path / "source")
            (each,) = resource_statuses(runs.call, wall_clock())
            assert each.is_ahead(wall_clock()) is (clock is not wall_clock)
            assert each.is_older(wall_clock(), 26 * HOUR_MS) is (clock is not wall_clock)
            assert each.last.recovery_point_arn == runs.latest()
            top = build_folders(list_points(runs.call))
            resource, name = top.entries[b"latest"].target.split(b"/")[1:]
            assert top.entries[b"resources"].entries[resource].entries[name] == each.last


def test_a_resource_without_a_good_point_is_older_than_any_age(store):
    job_id = started(store, "other")
    other, tree = resource_statuses(store, wall_clock())
    assert (other.name, other.last, other.running.backup_job_id) == ("other", None, job_id)
    assert other.is_older(wall_clock(), 1000 * DAY_MS)
    assert not tree.is_older(wall_clock(), DAY_MS)


def test_a_stopped_job_counts_as_failed_for_a_week(store):
    store.call(StopBackupJob(backup_job_id=started(store)))
    assert resource_statuses(store, wall_clock())[0].failed is not None
    assert resource_statuses(store, wall_clock() + 8 * DAY_MS)[0].failed is None


def test_a_trial_job_is_not_a_resource(store):
    run_trial_job(store, "Default")
    assert [each.name for each in resource_statuses(store, wall_clock())] == ["tree"]
