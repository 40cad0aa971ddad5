"""Folders above the recovery points of a mount: by resource, time and id."""

from __future__ import annotations

import pytest

from cryostore.agent.archive.recovery_points import RecoveryPoint
from cryostore.agent.mount.file_system import (
    REFRESH_SECONDS,
    MountFolder,
    MountLink,
    PointFolders,
    build_folders,
)

COVERS = ("agent/mount/file_system.py",)


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
def test_resources_with_equal_folder_names_get_a_suffix(names):
    points = [point_of(number, name, vault=f"vault-{number}") for number, name in enumerate(names)]
    folders = build_folders(points).entries[b"resources"].entries
    assert len(folders) == 2
    assert all(0 < len(name) <= 255 and b"/" not in name and name not in (b".", b"..") for name in folders)


def test_folders_are_listed_again_after_a_while():
    points, now = [point_of(1)], [100.0]
    folders = PointFolders(lambda: points, monotonic=lambda: now[0])
    assert isinstance(folders.find(b""), MountFolder)
    assert isinstance(folders.find(b"latest"), MountLink)
    assert folders.find(b"resources/tree/1970-01-01T00:00:00Z") is points[0]
    assert folders.find(b"resources/other") is None
    assert folders.find(b"latest/below") is None
    points.append(point_of(2, "other"))
    now[0] += REFRESH_SECONDS - 0.1
    assert folders.find(b"resources/other") is None
    now[0] += 0.1
    assert isinstance(folders.find(b"resources/other"), MountFolder)
