"""Pool of open archives: a bounded number of recovery points, opened again when the store has ended their jobs."""

from __future__ import annotations

import random
from contextlib import closing

import pytest

from cryostore.agent.archive.recovery_points import find_point, list_points
from cryostore.agent.mount.archive_pool import ArchivePool, PooledFile
from cryostore.client import pages
from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import MIB
from cryostore.model.restore_jobs import CompleteRestoreJob, ListRestoreJobs
from support.archives.single_file import streams


def open_jobs(call):
    return [job for job in pages.items(call, ListRestoreJobs()) if job.status in ("PENDING", "RUNNING")]


def test_archives_are_opened_at_the_first_access_and_few_stay_open(local_runs):
    runs = streams(local_runs)
    for number in range(4):
        runs.stream(b"%d" % number)
    found = list(list_points(local_runs.call, resource=local_runs.resource))
    before = len(open_jobs(local_runs.call))
    with closing(ArchivePool(local_runs.call, open_max=2)) as points:
        files = [PooledFile(points, point, points.run(point, lambda each: each.only())) for point in found]
        assert len(open_jobs(local_runs.call)) - before == 2
        for _ in range(2):
            assert [file.read(0, 10) for file in files] == [b"3", b"2", b"1", b"0"]
        assert len(open_jobs(local_runs.call)) - before == 2
    assert len(open_jobs(local_runs.call)) == before


def test_an_archive_whose_job_has_ended_is_opened_again(runs):
    data = random.Random(1).randbytes(24 * MIB)
    streams(runs).stream(data)
    point = find_point(runs.call, "latest", resource=runs.resource)
    with closing(ArchivePool(runs.keyed_call)) as points:
        file = PooledFile(points, point, points.run(point, lambda files: files.only()))
        assert file.read(0, 10) == data[:10]
        (job_id,) = {points.run(point, lambda files: files.archive.job_id)}
        runs.call.call(CompleteRestoreJob(restore_job_id=job_id, status="COMPLETED"))
        assert file.read(10, 24 * MIB) == data[10:]
        assert points.run(point, lambda files: files.archive.job_id) != job_id


def test_a_failed_call_leaves_the_archive_usable(local_runs):
    streams(local_runs).stream(b"data")
    point = find_point(local_runs.call, "latest", resource=local_runs.resource)
    with closing(ArchivePool(local_runs.call)) as points:
        with pytest.raises(ConfigurationError):
            points.run(point, lambda files: files.file("missing"))
        assert points.run(point, lambda files: files.only()).path == b"file"
