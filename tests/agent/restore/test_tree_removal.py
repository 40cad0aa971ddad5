"""Removal of directory trees: depth, symlinks, mounts, and entries that cannot be removed."""

from __future__ import annotations

import errno
import os
import resource
import subprocess

import pytest

from cryostore.agent.restore.tree_removal import MOUNTED, remove_tree
from support.archives.agent import seen, write
from support.faults.os_calls import failing
from support.faults.small_disk import can_mount

LEVELS = 3000


def fail_on_problem(path, reason):
    pytest.fail(f"{path!a}: {reason}")


def test_a_tree_deeper_than_any_stack_or_limit_of_descriptors_is_removed(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    parent = os.dup(fd)
    os.mkdir("top", dir_fd=fd)
    for _ in range(LEVELS):
        below = os.open("top", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        os.mkdir("top", dir_fd=fd)
        os.mkdir("beside", dir_fd=fd)
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        assert remove_tree(parent, b"top", fail_on_problem, dry_run=True) == 2 * LEVELS + 1
        assert remove_tree(parent, b"top", fail_on_problem) == 2 * LEVELS + 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(parent)
    assert os.listdir(tmp_path) == []


def test_nothing_behind_a_symlink_is_removed(tmp_path):
    write(tmp_path / "outside", {"kept": b""})
    before = seen(tmp_path / "outside")
    write(tmp_path / "tree", {"a": {"way out": lambda path: os.symlink(tmp_path / "outside", path), "b": b""}})
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        assert remove_tree(parent, b"tree", fail_on_problem, dry_run=True) == 4
        assert remove_tree(parent, b"tree", fail_on_problem) == 4
    finally:
        os.close(parent)
    assert os.listdir(tmp_path) == ["outside"]
    assert seen(tmp_path / "outside") == before


@pytest.fixture
def tree(tmp_path):
    """A tree in a folder, and the descriptor of the folder."""
    write(tmp_path / "in" / "tree", {"a": {"b": {"c": b""}, "d": b""}, "e": b"", "f": {"g": b""}})
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    yield tmp_path / "in" / "tree", fd
    os.close(fd)


@pytest.mark.skipif(not can_mount(), reason="only root may mount")
@pytest.mark.parametrize("how", [["-t", "tmpfs", "tmpfs"], ["--bind", "{other}"]], ids=["tmpfs", "bind"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_mount_in_the_tree_is_not_entered(tree, tmp_path, how, dry_run):
    path, fd = tree
    write(tmp_path / "other", {})
    subprocess.run(["mount", *[part.format(other=tmp_path / "other") for part in how], path / "a" / "b"], check=True)
    reported = []
    try:
        write(path / "a" / "b", {"precious": b"", "folder": {"deep": b""}})
        removed = remove_tree(fd, b"tree", lambda *issue: reported.append(issue), dry_run=dry_run)
        assert sorted(os.listdir(path / "a" / "b")) == ["folder", "precious"]
    finally:
        subprocess.run(["umount", path / "a" / "b"], check=True)
    assert reported == [(b"tree/a/b", MOUNTED)]
    assert removed == 4
    if not dry_run:
        assert set(seen(path)) == {b"", b"a", b"a/b", b"a/b/c"}


@pytest.mark.parametrize("call", ["unlink", "rmdir", "listdir", "stat", "open"])
def test_entries_that_cannot_be_removed_are_reported_and_all_others_removed(tree, monkeypatch, call):
    path, fd = tree
    before = set(seen(path))
    for at in range(20):
        write(path, {"a": {"b": {"c": b""}, "d": b""}, "e": b"", "f": {"g": b""}})
        reported = {}
        with failing(monkeypatch, call, errno.EPERM, at=at) as calls:
            removed = remove_tree(fd, b"tree", reported.__setitem__)
        if not reported:
            assert not path.exists()
            if len(calls) <= at:
                break
            continue
        assert len(reported) == 1
        left = set(seen(path))
        assert removed == len(before) - len(left)
        culprit = next(iter(reported)).removeprefix(b"tree").lstrip(b"/")
        for each in left - {b"", culprit}:  # only entries below or above that one stay
            assert not culprit or each.startswith(culprit + b"/") or culprit.startswith(each + b"/")
    else:
        pytest.fail("more calls than expected")
