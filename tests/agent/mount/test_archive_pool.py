"""What a mount keeps open: a bounded number of recovery points, opened anew when the store has ended their jobs."""

from __future__ import annotations

import random
from contextlib import closing

import pytest

from cryostore.agent.archive.recovery_points import RecoveryPoint, find_point, list_points
from cryostore.agent.mount import archive_pool, point_folders
from cryostore.agent.mount.archive_pool import ArchivePool, PooledFile
from cryostore.agent.mount.node_table import ROOT, NodeLocation, NodeTable
from cryostore.agent.mount.point_folders import MountFolder, MountLink, PointFolders, build_folders
from cryostore.client import pages
from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import MIB
from cryostore.model.restore_jobs import CompleteRestoreJob, ListRestoreJobs
from support.single_file import streams


def open_jobs(call):
    return [job for job in pages.items(call, ListRestoreJobs()) if job.status in ("PENDING", "RUNNING")]


def test_points_are_opened_when_they_are_needed_and_few_stay_open(local_runs, monkeypatch):
    monkeypatch.setattr(archive_pool, "OPEN_MAX", 2)
    runs = streams(local_runs)
    for number in range(4):
        runs.stream(b"%d" % number)
    found = list(list_points(local_runs.call, resource=local_runs.resource))
    before = len(open_jobs(local_runs.call))
    with closing(ArchivePool(local_runs.call)) as points:
        files = [PooledFile(points, point, points.run(point, lambda each: each.only())) for point in found]
        assert len(open_jobs(local_runs.call)) - before == 2
        for _ in range(2):
            assert [file.read(0, 10) for file in files] == [b"3", b"2", b"1", b"0"]
        assert len(open_jobs(local_runs.call)) - before == 2
    assert len(open_jobs(local_runs.call)) == before


def test_a_point_whose_job_has_ended_is_opened_anew(runs):
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


def test_a_failure_is_not_kept(local_runs):
    streams(local_runs).stream(b"data")
    point = find_point(local_runs.call, "latest", resource=local_runs.resource)
    with closing(ArchivePool(local_runs.call)) as points:
        with pytest.raises(ConfigurationError):
            points.run(point, lambda files: files.file("missing"))
        assert points.run(point, lambda files: files.only()).path == b"file"


def point_of(number, resource="tree", seconds=0.0, vault="Default"):
    arn = f"arn:aws:backup:local-1:000000000000:recovery-point:{number:08}"
    names = {"resource_name": resource, "resource_arn": f"arn:aws:cryo:::fileset:{resource}"}
    return RecoveryPoint(recovery_point_arn=arn, creation_date=seconds, backup_vault_name=vault, **names)


def test_folders_by_resource_time_and_id():
    points = [point_of(2, seconds=60.0), point_of(1), point_of(3, "/srv", 60.0), point_of(4, seconds=60.5)]
    top = build_folders(points)
    assert sorted(top.entries) == [b"ids", b"latest", b"resources", b"times"]
    tree = top.entries[b"resources"].entries[b"tree"].entries
    assert sorted(tree) == [
        b"1970-01-01T00:00:00Z",
        b"1970-01-01T00:01:00Z",
        b"1970-01-01T00:01:00Z-2",
        b"latest",
    ]
    assert tree[b"latest"].target == b"1970-01-01T00:01:00Z-2"
    assert tree[b"1970-01-01T00:00:00Z"] is points[1]
    assert top.entries[b"latest"].target == b"resources/tree/1970-01-01T00:01:00Z-2"
    assert top.entries[b"ids"].entries[b"00000003"].target == b"../resources/_srv/1970-01-01T00:01:00Z"
    assert len(top.entries[b"times"].entries) == 4


@pytest.mark.parametrize("names", [("a/b", "a_b"), (".", ".."), ("x" * 1000, "x" * 1001), ("tree", "tree")])
def test_resources_that_would_be_called_alike(names):
    points = [point_of(number, name, vault=f"vault-{number}") for number, name in enumerate(names)]
    folders = build_folders(points).entries[b"resources"].entries
    assert len(folders) == 2
    assert all(0 < len(name) <= 255 and b"/" not in name and name not in (b".", b"..") for name in folders)


def test_folders_are_listed_again_after_a_while(monkeypatch):
    points = [point_of(1)]
    folders = PointFolders(lambda: points)
    assert isinstance(folders.find(b""), MountFolder)
    assert isinstance(folders.find(b"latest"), MountLink)
    assert folders.find(b"resources/tree/1970-01-01T00:00:00Z") is points[0]
    assert folders.find(b"resources/other") is None
    assert folders.find(b"latest/below") is None
    points.append(point_of(2, "other"))
    assert folders.find(b"resources/other") is None
    monkeypatch.setattr(point_folders, "REFRESH_SECONDS", 0.0)
    assert isinstance(folders.find(b"resources/other"), MountFolder)


def test_nodes_are_dropped_when_the_kernel_forgets_them():
    nodes = NodeTable(NodeLocation("", b""))
    number = nodes.look_up(NodeLocation("a", b"x"))
    assert nodes.look_up(NodeLocation("a", b"x")) == number
    assert nodes.place(number) == NodeLocation("a", b"x")
    nodes.forget(number, 1)
    assert nodes.place(number) == NodeLocation("a", b"x")
    nodes.forget(number, 1)
    with pytest.raises(FileNotFoundError):
        nodes.place(number)
    nodes.forget(number, 1)
    nodes.forget(ROOT, 100)
    assert nodes.place(ROOT) == NodeLocation("", b"")
    assert nodes.look_up(NodeLocation("a", b"x")) != number
    assert len(nodes) == 2
