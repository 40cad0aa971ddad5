"""Directories of a restore: existing ones, read-only ones, ones that a file replaces, and the target itself."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from cryostore.agent.errors import TargetError
from support.archives.agent import Runs, seen, write


def test_a_file_replaces_a_folder_only_if_it_is_empty_or_with_delete(local_runs, backed_up, tmp_path):
    target = tmp_path / "target"
    write(target, {"a": {"precious": b"precious"}})
    report = local_runs.restore(target)
    assert [(issue.path, issue.reason) for issue in report.issues] == [(b"a", os.strerror(errno.ENOTEMPTY))]
    assert (target / "a" / "precious").exists()
    assert local_runs.restore(target, delete=True).issue_count == 0
    assert seen(target) == seen(backed_up)


def test_a_target_that_is_not_a_folder_is_refused(local_runs, backed_up, tmp_path):
    write(tmp_path, {"file": b""})
    with pytest.raises(TargetError):
        local_runs.restore(tmp_path / "file")


def test_overwrite_never_keeps_the_attributes_of_the_target(local_runs, backed_up, tmp_path):
    (tmp_path / "target").mkdir(mode=0o700)
    local_runs.restore(tmp_path / "target", overwrite="never")
    assert (tmp_path / "target").stat().st_mode & 0o7777 == 0o700
    local_runs.restore(tmp_path / "target")
    assert (tmp_path / "target").stat().st_mode == backed_up.stat().st_mode


def test_delete_empties_a_folder_that_is_empty_in_the_archive(local_runs, tmp_path):
    write(tmp_path / "source", {"empty": {}})
    local_runs.backup(tmp_path / "source")
    write(tmp_path / "target", {"empty": {"extra": b""}})
    assert local_runs.restore(tmp_path / "target", delete=True).deleted == 1
    assert os.listdir(tmp_path / "target" / "empty") == []


@pytest.mark.parametrize("mode", [0o555, 0o500, 0o300, 0o000])
def test_the_owner_of_a_read_only_folder_can_restore_into_it(client, as_nobody, mode):
    runs = Runs(client, f"nobody-{mode:o}")
    source, target = as_nobody / "source", as_nobody / "target"
    write(source, {"kept": b"kept", "locked": {"changed": b"changed", "locked": {"lost": b"lost"}}})
    runs.backup(source)
    for deep in ("locked/locked", "locked"):
        (source / deep).chmod(0o555)
    runs.backup(source)
    runs.restore(target)
    for folder in ("locked", "locked/locked"):
        (target / folder).chmod(0o755)
    (target / "locked" / "changed").write_bytes(b"by mistake")
    (target / "locked" / "locked" / "lost").unlink()
    write(target / "locked" / "locked", {"extra": b""})
    for folder in ("locked/locked", "locked"):
        (target / folder).chmod(mode)
    assert runs.restore(target, overwrite="never").issue_count == 0
    assert stat.S_IMODE((target / "locked").stat().st_mode) == mode
    report = runs.restore(target, delete=True)
    assert (report.issue_count, report.new, report.deleted) == (0, 1, 1)
    assert seen(target) == seen(source)
