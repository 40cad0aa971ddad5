"""Restore of a single file: over existing entries, disks in place, into pipes, and through symlinks of the user."""

from __future__ import annotations

import errno
import os
import random
import threading

import pytest

from cryostore.agent.errors import TargetError
from cryostore.agent.restore import single_file_restore
from cryostore.core.limits import MIB
from support.archives.single_file import disks, streams, write_at
from support.faults.os_calls import REAL, failing


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def test_overwrite_decides_what_happens_to_an_existing_file(local_runs, tmp_path):
    runs = streams(local_runs)
    runs.stream(b"stream")
    target = tmp_path / "out"
    target.write_bytes(b"other")
    assert runs.restore(target, overwrite="never").unchanged == 1
    assert target.read_bytes() == b"other"
    assert runs.restore(target, dry_run=True).new == 1
    assert target.read_bytes() == b"other"
    assert runs.restore(target).new == 1
    assert target.read_bytes() == b"stream"
    assert runs.restore(target).unchanged == 1
    target.write_bytes(b"later!")
    assert runs.restore(target, overwrite="newer").unchanged == 1
    assert runs.restore(tmp_path).new == 1
    assert (tmp_path / "file").read_bytes() == b"stream"
    assert sorted(os.listdir(tmp_path)) == ["file", "out"]


@pytest.mark.parametrize("call", ["utime", "fsync"])
def test_a_target_that_refuses_times_gets_the_content(local_runs, tmp_path, monkeypatch, call):
    runs = streams(local_runs)
    runs.stream(b"stream")
    calls = 1 if call == "fsync" else 0  # the call for the folder, which some file systems refuse
    with failing(monkeypatch, call, errno.EINVAL, at=calls):
        report = runs.restore(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"stream"
    assert report.issue_count == (call == "utime")
    assert os.listdir(tmp_path) == ["out"]


def test_a_pipe_that_becomes_a_file_before_it_is_opened_is_not_written_into(local_runs, tmp_path, monkeypatch):
    runs = streams(local_runs)
    runs.stream(b"stream")
    target, secret = tmp_path / "pipe", tmp_path / "secret"
    os.mkfifo(target)
    secret.write_bytes(b"secret")

    def swapping(path, *arguments, **named):
        if path == os.fsencode(target):
            os.replace(secret, target)
        return REAL["open"](path, *arguments, **named)

    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises(TargetError, match="another process changed it"):
        runs.restore(target)
    assert target.read_bytes() == b"secret"


def test_a_pipe_receives_the_content(local_runs, tmp_path):
    runs = streams(local_runs)
    runs.stream(noise(MIB))
    os.mkfifo(tmp_path / "pipe")
    got = []
    thread = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    thread.start()
    runs.restore(tmp_path / "pipe")
    thread.join()
    assert got == [noise(MIB)]


@pytest.mark.parametrize("overwrite", ["always", "changed", "newer"])
def test_a_symlink_in_a_folder_is_not_followed(local_runs, tmp_path, overwrite):
    """The user named the folder; the name in it comes from the archive."""
    out, folder = tmp_path / "out", tmp_path / "folder"
    out.write_bytes(b"untouched")
    os.utime(out, ns=(1, 1))
    folder.mkdir()
    os.symlink(out, folder / "file")
    os.utime(folder / "file", ns=(1, 1), follow_symlinks=False)
    streams(local_runs).stream(b"the dump")
    streams(local_runs).restore(folder, overwrite=overwrite)
    assert out.read_bytes() == b"untouched"
    assert not (folder / "file").is_symlink()
    assert (folder / "file").read_bytes() == b"the dump"


def test_a_pipe_in_a_folder_is_replaced_and_not_written_into(local_runs, tmp_path):
    os.mkfifo(tmp_path / "file")
    streams(local_runs).stream(b"the dump")
    streams(local_runs).restore(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"the dump"


def test_a_symlink_that_the_user_names_is_followed(local_runs, tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    os.symlink("real", tmp_path / "link")
    streams(local_runs).stream(b"the dump")
    streams(local_runs).restore(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"the dump"


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

    monkeypatch.setattr(single_file_restore, "pwrite_all", full)
    with pytest.raises(TargetError, match="No space left"):
        disks(local_runs).restore(tmp_path / "out.raw")
    assert sorted(os.listdir(tmp_path)) == ["disk.raw"]
