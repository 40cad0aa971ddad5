"""File systems that a data directory may be on. `cryo doctor` tests the other checks: tests/cli/doctor."""

from __future__ import annotations

import pytest

from cryostore.core.diagnosis import OK, WARNING
from cryostore.maintenance.diagnosis import directory
from cryostore.maintenance.diagnosis.mount_table import MountPoint


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
    assert directory._file_system(mount).level == level
