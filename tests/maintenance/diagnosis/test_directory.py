"""The file system of a data directory. tests/cli/test_doctor.py tests the other checks."""

from __future__ import annotations

import pytest

from cryostore.maintenance.diagnosis import OK, WARNING, stores
from cryostore.maintenance.diagnosis.stores import MountPoint, mount_of

COVERS = ("maintenance/diagnosis/stores.py",)


@pytest.mark.parametrize(
    ("mount", "level"),
    [
        (MountPoint("/", "ext4", frozenset({"rw"})), OK),
        (MountPoint("/", "ext4", frozenset({"rw", "nobarrier"})), WARNING),
        (MountPoint("/net", "nfs4", frozenset()), WARNING),
        (MountPoint("/net", "fuse.sshfs", frozenset()), WARNING),
        (MountPoint("/stick", "vfat", frozenset()), WARNING),
        (MountPoint("/", "overlay", frozenset()), WARNING),
        (None, WARNING),
    ],
)
def test_file_systems(mount, level):
    assert stores._file_system(mount).level == level


def test_the_table_of_mounts(tmp_path):
    table = tmp_path / "mounts"
    inner = tmp_path / "with space"
    place = str(inner).replace(" ", r"\040")
    table.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {place} nfs4 rw,hard 0 0\nserver:/y {place}er nfs 0 0\n")
    assert mount_of(inner / "deep", table) == MountPoint(str(inner), "nfs4", frozenset({"rw", "hard"}))
    assert mount_of(tmp_path, table) == MountPoint("/", "ext4", frozenset({"rw"}))
    assert mount_of(tmp_path / "with spaces", table) == MountPoint("/", "ext4", frozenset({"rw"}))
    assert mount_of(tmp_path, tmp_path / "none") is None
