"""Directories of a target that another user can change, or that are deeper than the limit of open files."""

from __future__ import annotations

import os
import resource
import stat

import pytest

from support.archives.agent import contents, seen, write
from support.faults.os_calls import REAL

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")
USER = 4242


@pytest.fixture
def theirs(local_runs, tmp_path):
    """A target of another user, who can replace its entries; a source with files of that user is backed up."""
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"file": b"archived", "folder": {"in": b"in"}})
    os.chmod(source / "file", 0o644)
    for path in (source, source / "file", source / "folder", source / "folder" / "in"):
        os.chown(path, USER, USER)
        os.utime(path, ns=(1, 10**18))
    local_runs.backup(source)
    target.mkdir()
    os.chown(target, USER, USER)
    return target


def secret(path, data=b"rootonly"):
    """Create a file of root with the size and time of the archived one; return its inode."""
    path.write_bytes(data)
    path.chmod(0o600)
    os.utime(path, ns=(1, 10**18))
    return path.stat().st_ino


def still_root(target, inode):
    """Whether the file with this inode, if it still has a name, belongs to root and only root can read it."""
    found = [
        status for status in map(os.lstat, (target / name for name in os.listdir(target))) if status.st_ino == inode
    ]
    return all((status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600) for status in found)


@needs_root
@pytest.mark.parametrize("overwrite", ["changed", "always", "newer", "never"])
def test_a_file_of_root_under_the_name_does_not_change_owner(local_runs, theirs, overwrite):
    inode = secret(theirs / "file")
    local_runs.restore(theirs, overwrite=overwrite)
    assert still_root(theirs, inode)
    if overwrite in ("changed", "always"):
        assert (theirs / "file").read_bytes() == b"archived"
        assert (theirs / "file").stat().st_uid == USER


@needs_root
def test_a_file_swapped_for_one_of_root_does_not_change_owner(local_runs, theirs, monkeypatch):
    local_runs.restore(theirs)
    os.chmod(theirs / "file", 0o640)
    inode = secret(theirs / "secret")

    def swapping(name, flags, *arguments, **named):
        if name == b"file":
            os.rename(theirs / "file", theirs / "other")
            os.rename(theirs / "secret", theirs / "file")
        return REAL["open"](name, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", swapping)
    report = local_runs.restore(theirs)
    assert report.issue_count == 1
    assert still_root(theirs, inode)


@needs_root
def test_a_folder_of_root_under_the_name_does_not_change_owner(local_runs, theirs):
    write(theirs, {"folder": {"secret": b"secret"}})
    os.chmod(theirs / "folder", 0o700)
    report = local_runs.restore(theirs)
    assert [issue.path for issue in report.issues] == [b"folder"]
    found = (theirs / "folder").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o700)
    assert (theirs / "folder" / "in").read_bytes() == b"in"


@needs_root
@pytest.mark.parametrize("when", ["created", "checked"])
def test_a_folder_swapped_for_one_of_root_does_not_change_owner(local_runs, theirs, monkeypatch, when):
    write(theirs, {"secret": {"secret": b"secret"}})
    os.chmod(theirs / "secret", 0o700)
    inode = (theirs / "secret").stat().st_ino

    def swap():
        os.rename(theirs / "folder", theirs / "other")
        os.rename(theirs / "secret", theirs / "folder")

    def mkdir(name, *arguments, **named):
        REAL["mkdir"](name, *arguments, **named)
        if name == b"folder":
            swap()

    def stat_of(name, *arguments, **named):  # a new folder is checked once, and opened later
        found = REAL["stat"](name, *arguments, **named)
        if name == b"folder" and (theirs / "secret").exists():
            swap()
        return found

    monkeypatch.setattr(os, *(("mkdir", mkdir) if when == "created" else ("stat", stat_of)))
    report = local_runs.restore(theirs)
    monkeypatch.undo()
    assert report.issue_count >= 1
    found = (theirs / "folder").stat()
    assert (found.st_ino, found.st_uid, os.listdir(theirs / "folder")) == (inode, 0, ["secret"])


@needs_root
def test_a_program_of_another_user_does_not_become_setuid_root(local_runs, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"program": b"archived"})
    os.chmod(source / "program", 0o4755)
    os.utime(source / "program", ns=(1, 10**18))
    local_runs.backup(source)
    write(target, {"program": b"hostile!"})
    os.utime(target / "program", ns=(1, 10**18))
    for path in (target, target / "program"):
        os.chown(path, USER, USER)
    assert local_runs.restore(target).issue_count == 0
    assert seen(target) == seen(source)


@needs_root
def test_owners_are_repaired_in_place_in_folders_of_root(local_runs, theirs):
    local_runs.restore(theirs)
    inode = (theirs / "file").stat().st_ino
    for path in (theirs, theirs / "file", theirs / "folder", theirs / "folder" / "in"):
        os.chown(path, 0, 0)
    report = local_runs.restore(theirs)
    assert (report.new, report.issue_count) == (0, 0)
    assert (theirs / "file").stat().st_ino == inode
    assert seen(theirs) == seen(theirs.parent / "source")


def test_a_tree_deeper_than_the_limit_of_descriptors_is_restored(local_runs, tmp_path):
    depth = 300
    source, target = tmp_path / "source", tmp_path / "target"
    deep = {"leaf": b"leaf"}
    for _ in range(depth):
        deep = {"d": deep}
    write(source, deep)
    local_runs.backup(source)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(128, soft), hard))
    try:
        report = local_runs.restore(target)
        again = local_runs.restore(target, delete=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (report.issue_count, again.issue_count, again.new) == (0, 0, 0)
    assert contents(target) == {b"/".join([b"d"] * depth + [b"leaf"]): b"leaf"}
    assert seen(target) == seen(source)
