"""Extraneous entries: `--delete` across mounts, after errors, and beside excluded entries."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from cryostore.agent.source.selection import Patterns
from support.archives.agent import seen, write
from support.faults.os_calls import failing
from support.faults.small_disk import can_mount


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a tmpfs, or as `how` says, until the end of the test."""
    if not can_mount():
        pytest.skip("only root may mount")
    paths = []

    def mount(path, *how):
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", *(how or ("-t", "tmpfs", "tmpfs")), str(path)], check=True)
        paths.append(path)

    yield mount
    for path in reversed(paths):
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize("dry_run", [False, True])
def test_delete_does_not_enter_a_file_system_that_the_archive_does_not_know(local_runs, tmp_path, mounted, dry_run):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"a": b"a", "plain": {"b": b"b", "below": {"c": b"c"}}})
    local_runs.backup(source)
    write(target, {"surplus": {"deep": {"gone": b""}}})
    for place in ("surplus/deep/usb", "plain", "usb"):
        mounted(target / place)
        write(target / place, {"precious": b"p", "below": {"precious": b"q"}})
    report = local_runs.restore(target, delete=True, dry_run=dry_run)
    for place in ("surplus/deep/usb", "plain", "usb"):
        assert (target / place / "precious").read_bytes() == b"p"
        assert (target / place / "below" / "precious").read_bytes() == b"q"
    assert {issue.path for issue in report.issues} == {b"surplus/deep/usb", b"plain", b"usb"}
    assert report.deleted == 1
    assert (target / "surplus" / "deep" / "gone").exists() == dry_run
    if not dry_run:
        assert (target / "plain" / "below" / "c").read_bytes() == b"c"


def test_delete_enters_a_file_system_that_the_archive_knows(local_runs, tmp_path, mounted):
    source, target = tmp_path / "source", tmp_path / "target"
    mounted(source / "disk")
    write(source, {"disk": {"a": b"a"}})
    local_runs.backup(source)
    mounted(target / "disk")
    write(target, {"disk": {"surplus": b""}})
    report = local_runs.restore(target, delete=True)
    assert (report.deleted, report.issue_count) == (1, 0)
    assert os.listdir(target / "disk") == ["a"]


def test_delete_does_not_empty_an_excluded_file_system(local_runs, tmp_path, mounted):
    source = tmp_path / "source"
    write(source, {"a": b"a"})
    mounted(source / "disk")
    write(source, {"disk": {"precious": b"p"}})
    local_runs.backup(source, one_file_system=True)
    report = local_runs.restore(source, delete=True)
    assert report.deleted == 0
    assert (source / "disk" / "precious").read_bytes() == b"p"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EBUSY, errno.EIO])
def test_delete_counts_removed_entries_and_continues_after_an_error(local_runs, tmp_path, monkeypatch, code):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"a": b"a"})
    local_runs.backup(source)
    local_runs.restore(target)
    write(target, {"one": b"", "two": {"three": b"", "four": b""}, "six": b""})
    with failing(monkeypatch, "unlink", code, at=1):
        report = local_runs.restore(target, delete=True)
    left = set(seen(target)) - {b"", b"a"}
    assert report.deleted == 5 - len(left)
    assert report.issue_count == 1
    assert report.issues[0].path in left


def test_delete_keeps_excluded_entries(local_runs, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"a": b"a"})
    local_runs.backup(source)
    write(target, {"cache": {"x": b""}, "more": {"x.keep": b"", "y": b""}})
    patterns = Patterns(["cache/", "*.keep"])
    report = local_runs.restore(
        target, delete=True, exclude=lambda path, is_directory: patterns.fit(b"/" + path, is_directory=is_directory)
    )
    assert set(seen(target)) == {b"", b"a", b"cache", b"cache/x", b"more", b"more/x.keep"}
    assert (report.deleted, report.issue_count) == (1, 0)
