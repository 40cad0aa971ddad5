"""The file system of a path."""

from __future__ import annotations

from cryostore.maintenance.diagnosis.mount_table import MountPoint, mount_of


def test_the_table_of_mounts(tmp_path):
    table = tmp_path / "mounts"
    inner = tmp_path / "with space"
    place = str(inner).replace(" ", r"\040")
    table.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {place} nfs4 rw,hard 0 0\nserver:/y {place}er nfs 0 0\n")
    assert mount_of(inner / "deep", table) == MountPoint(str(inner), "nfs4", frozenset({"rw", "hard"}))
    assert mount_of(tmp_path, table) == MountPoint("/", "ext4", frozenset({"rw"}))
    assert mount_of(tmp_path / "with spaces", table) == MountPoint("/", "ext4", frozenset({"rw"}))
    assert mount_of(tmp_path, tmp_path / "none") is None
