"""Attributes that a target refuses, or that this process may not set."""

from __future__ import annotations

import errno
import os

import pytest

from support.archives.agent import Runs, contents, seen, write
from support.faults.os_calls import failing

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")
USER = 4242


@pytest.mark.parametrize("call", ["chmod", "utime", "chown", "setxattr", "listxattr", "removexattr", "getxattr"])
@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSPC, errno.EIO])
def test_refused_attributes_are_one_issue_per_kind_and_content_is_restored(
    local_runs, tmp_path, monkeypatch, call, code
):
    source, target = tmp_path / "source", tmp_path / "target"
    link = {} if call == "chown" else {"link": lambda path: os.symlink("a", path)}
    write(source, {"a": b"a", "d": {"b": b"b", "large": os.urandom(3_000_000)}, "pipe": os.mkfifo} | link)
    for name in ("a", "d/b", "d"):
        os.setxattr(source / name, "user.note", b"note")
        os.chmod(source / name, 0o751)
    if os.geteuid() == 0:
        for name in ("a", "d/b"):
            os.chown(source / name, USER, USER)
    local_runs.backup(source)
    with failing(monkeypatch, call, code):
        report = local_runs.restore(target)
    assert contents(target) == contents(source)
    assert set(seen(target)) == set(seen(source))
    assert report.new == report.files + len(link) + 1
    expected = 0 if call in ("removexattr", "getxattr") or (call == "chown" and os.geteuid() != 0) else 1
    assert report.issue_count == expected
    if expected:
        assert "more)" in report.issues[0].reason


def test_attributes_that_are_already_right_are_no_issue(local_runs, tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"a": b"a"})
    os.chmod(source / "a", 0o600)
    local_runs.backup(source)
    with failing(monkeypatch, "chmod", errno.EPERM):
        report = local_runs.restore(target)
    assert [issue.path for issue in report.issues] == [b""]  # the folder has another mode than it was made with


@needs_root
@pytest.mark.parametrize("mode", [0o200, 0o000, 0o333])
def test_a_second_restore_over_unreadable_files_changes_what_it_can(client, as_nobody, mode):
    runs = Runs(client, f"locked-{mode:o}")
    source, target = as_nobody / "source", as_nobody / "target"
    write(source, {"locked": b"locked", "open": b"open"})
    os.setxattr(source / "locked", "user.note", b"note")
    runs.backup(source)
    runs.restore(target)
    os.chmod(target / "locked", mode)
    report = runs.restore(target)
    assert (report.new, report.unchanged, report.issue_count) == (0, 2, 0)
    assert seen(target) == seen(source)


@needs_root
def test_a_second_restore_of_unreadable_files_has_nothing_to_do(client, as_nobody):
    runs = Runs(client, "shut")
    source, target = as_nobody / "source", as_nobody / "target"
    write(source, {"locked": b"locked"})
    os.setxattr(source / "locked", "user.note", b"note")
    os.seteuid(0)
    try:
        os.chmod(source / "locked", 0o200)
        runs.backup(source)
    finally:
        os.seteuid(65534)
    runs.restore(target)
    report = runs.restore(target)
    assert (report.new, report.unchanged, report.issue_count) == (0, 1, 0)
