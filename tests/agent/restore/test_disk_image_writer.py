"""Writer of disk images: in place only the blocks that differ, and nothing after a failure."""

from __future__ import annotations

import errno
import os

import pytest

from cryostore.agent.errors import TargetError
from cryostore.agent.restore import disk_image_writer
from cryostore.core.limits import MIB
from support.archives.single_file import disks, write_at


def test_a_restore_in_place_writes_only_blocks_that_differ(local_runs, image, tmp_path):
    runs = disks(local_runs)
    runs.disk(image)
    target = tmp_path / "target"
    runs.restore(target)
    os.utime(target)
    assert runs.restore(target).new_bytes == 0
    write_at(target, MIB + 1, b"y")
    write_at(target, 9 * MIB, b"in a hole")
    os.truncate(target, 20 * MIB)
    assert runs.restore(target).new_bytes == MIB
    assert target.read_bytes() == image.read_bytes()
    assert target.stat().st_blocks * 512 <= 5 * MIB
    os.utime(target)
    assert runs.restore(target, overwrite="always").new_bytes == 4 * MIB + 5
    assert target.read_bytes() == image.read_bytes()
    assert runs.restore(target, overwrite="never").unchanged == 1


def test_a_failing_restore_leaves_no_file_behind(local_runs, image, tmp_path, monkeypatch):
    disks(local_runs).disk(image)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk_image_writer, "pwrite_all", full)
    with pytest.raises(TargetError, match="No space left"):
        disks(local_runs).restore(tmp_path / "out.raw")
    assert sorted(os.listdir(tmp_path)) == ["disk.raw"]
