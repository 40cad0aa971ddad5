"""Targets of a restore that alias names, refuse attributes, hold mounts, or belong to somebody hostile."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess

import pytest

from cryostore.agent.source.patterns import Patterns
from support.agent import Runs, seen, write
from support.os_calls import REAL, case_blind, failing
from support.small_disk import can_mount

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")
USER = 4242


def contents(root):
    """The bytes of the files of a tree by their paths."""
    root = os.fsencode(root)
    found = {}
    for place, _, files in os.walk(root):
        for path in (os.path.join(place, name) for name in files):
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, root)] = file.read()
    return found


# --- targets that alias names ---

ALIASES = {
    "files": {"File": b"one", "file": b"two", "FILE": b"three"},
    "a file and a folder": {"a": b"file", "A": {"in": b"in"}},
    "a folder and a file": {"a": {"in": b"in"}, "A": b"file"},
    "folders": {"Sub": {"a": b"a", "x": b"1"}, "sub": {"b": b"b", "X": b"2"}},
    "a link and a file": {"a": b"file", "A": lambda path: os.symlink("somewhere", path)},
    "a pipe and a folder": {"A": os.mkfifo, "a": {"in": b"in"}},
}


@pytest.mark.parametrize("tree", ALIASES.values(), ids=ALIASES)
@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize("before", [{}, {"FILE": b"old", "SUB": {"A": b"old", "Y": b"y"}, "a": b"old", "more": {}}])
def test_names_that_the_target_does_not_tell_apart_are_issues(local_runs, tmp_path, monkeypatch, tree, delete, before):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, tree | {"beside": b"beside"})
    write(target, before)
    local_runs.backup(source)
    with case_blind(monkeypatch):
        report = local_runs.restore(target, delete=delete)
        again = local_runs.restore(target, delete=delete)
    assert report.issue_count >= 1
    assert again.issue_count >= 1
    archived, there = contents(source), contents(target)
    wrong = {issue.path.lower() for issue in report.issues}
    assert there[b"beside"] == b"beside"
    for path, data in archived.items():
        names = [name for name in there if name.lower() == path.lower()]
        is_told = any(path.lower() == each or path.lower().startswith(each + b"/") for each in wrong)
        assert data in [there[name] for name in names] or is_told, path
    if delete:
        assert {name.lower() for name in there} <= {path.lower() for path in archived}
    elif before:
        assert any(name.lower() == b"sub/y" for name in there)


@pytest.mark.parametrize("overwrite", ["changed", "always", "newer"])
def test_delete_spares_what_was_restored_under_another_case(local_runs, tmp_path, monkeypatch, overwrite):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"readme": b"new", "Sub": {"s": b"s"}, "kept": b"kept"})
    local_runs.backup(source)
    write(target, {"README": b"old", "SUB": {"S": b"old", "gone": b""}, "KEPT": b"kept", "gone": {"in": b""}})
    for place, name in (("source", "kept"), ("target", "KEPT")):
        os.utime(tmp_path / place / name, ns=(1, 1))
    for name in ("README", "SUB/S"):
        os.utime(target / name, ns=(1, 1))
    local_runs.backup(source)
    with case_blind(monkeypatch):
        report = local_runs.restore(target, delete=True, overwrite=overwrite)
    assert report.issue_count == 0
    assert report.deleted == 3
    assert {path.lower(): data for path, data in contents(target).items()} == {
        path.lower(): data for path, data in contents(source).items()
    }


def test_two_links_of_one_file_in_the_target_are_not_taken_for_one_entry(local_runs, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"a": b"a", "b": b"b"})
    local_runs.backup(source)
    write(target, {"a": b"same"})
    os.link(target / "a", target / "b")
    report = local_runs.restore(target)
    assert report.issue_count == 0
    assert contents(target) == contents(source)


@pytest.mark.skipif(not can_mount(), reason="only root may mount")
def test_a_folder_that_is_mounted_twice_is_restored_once_and_said(local_runs, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"a": {"x": b"1", "only a": b""}, "b": {"x": b"22", "only b": b""}})
    local_runs.backup(source)
    write(target, {"a": {"surplus": b""}, "b": {}})
    subprocess.run(["mount", "--bind", target / "a", target / "b"], check=True)
    try:
        report = local_runs.restore(target, delete=True)
        assert set(os.listdir(target / "a")) == {"x", "only a", "only b"}
    finally:
        subprocess.run(["umount", target / "b"], check=True)
    assert (target / "a" / "x").read_bytes() == b"1"
    assert {issue.path for issue in report.issues} == {b"b", b"a/x"}


# --- targets that refuse attributes ---


@pytest.mark.parametrize("call", ["chmod", "utime", "chown", "setxattr", "listxattr", "removexattr", "getxattr"])
@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSPC, errno.EIO])
def test_content_is_there_and_each_kind_is_named_once(local_runs, tmp_path, monkeypatch, call, code):
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


def test_attributes_that_are_right_already_are_no_issue_though_they_cannot_be_set(local_runs, tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"a": b"a"})
    os.chmod(source / "a", 0o600)
    local_runs.backup(source)
    with failing(monkeypatch, "chmod", errno.EPERM):
        report = local_runs.restore(target)
    assert [issue.path for issue in report.issues] == [b""]  # the folder has another mode than it was made with


@needs_root
@pytest.mark.parametrize("mode", [0o200, 0o000, 0o333])
def test_a_second_restore_over_files_that_may_not_be_opened_changes_what_it_can(client, as_nobody, mode):
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
def test_a_second_restore_of_files_that_may_not_be_opened_has_nothing_to_do(client, as_nobody):
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


# --- mounts in the target ---


@pytest.fixture
def mounted(tmp_path):
    """Mounts a disk of memory, and takes it away again."""
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
def test_delete_does_not_enter_a_file_system_that_the_point_does_not_know(local_runs, tmp_path, mounted, dry_run):
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


def test_delete_enters_a_file_system_that_the_point_knows(local_runs, tmp_path, mounted):
    source, target = tmp_path / "source", tmp_path / "target"
    mounted(source / "disk")
    write(source, {"disk": {"a": b"a"}})
    local_runs.backup(source)
    mounted(target / "disk")
    write(target, {"disk": {"surplus": b""}})
    report = local_runs.restore(target, delete=True)
    assert (report.deleted, report.issue_count) == (1, 0)
    assert os.listdir(target / "disk") == ["a"]


def test_delete_does_not_empty_what_was_left_out_as_another_file_system(local_runs, tmp_path, mounted):
    source = tmp_path / "source"
    write(source, {"a": b"a"})
    mounted(source / "disk")
    write(source, {"disk": {"precious": b"p"}})
    local_runs.backup(source, one_file_system=True)
    report = local_runs.restore(source, delete=True)
    assert report.deleted == 0
    assert (source / "disk" / "precious").read_bytes() == b"p"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EBUSY, errno.EIO])
def test_delete_counts_what_it_removed_and_goes_on_after_what_it_cannot(local_runs, tmp_path, monkeypatch, code):
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


def test_delete_spares_what_a_pattern_leaves_out(local_runs, tmp_path):
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


# --- targets of somebody hostile ---


@pytest.fixture
def theirs(local_runs, tmp_path):
    """A folder of another user, who may swap what is in it, and a source whose files are that user's."""
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
    """A file of root's that has the size and the time of the archived one."""
    path.write_bytes(data)
    path.chmod(0o600)
    os.utime(path, ns=(1, 10**18))
    return path.stat().st_ino


def still_root(target, inode):
    """Whether the file with this number, if it has a name left, is root's alone."""
    found = [
        status for status in map(os.lstat, (target / name for name in os.listdir(target))) if status.st_ino == inode
    ]
    return all((status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600) for status in found)


@needs_root
@pytest.mark.parametrize("overwrite", ["changed", "always", "newer", "never"])
def test_a_file_of_root_that_has_the_name_is_not_handed_over(local_runs, theirs, overwrite):
    inode = secret(theirs / "file")
    local_runs.restore(theirs, overwrite=overwrite)
    assert still_root(theirs, inode)
    if overwrite in ("changed", "always"):
        assert (theirs / "file").read_bytes() == b"archived"
        assert (theirs / "file").stat().st_uid == USER


@needs_root
def test_a_file_that_is_swapped_for_one_of_root_is_not_handed_over(local_runs, theirs, monkeypatch):
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
def test_a_folder_of_root_that_has_the_name_is_not_handed_over(local_runs, theirs):
    write(theirs, {"folder": {"secret": b"secret"}})
    os.chmod(theirs / "folder", 0o700)
    report = local_runs.restore(theirs)
    assert [issue.path for issue in report.issues] == [b"folder"]
    found = (theirs / "folder").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o700)
    assert (theirs / "folder" / "in").read_bytes() == b"in"


@needs_root
@pytest.mark.parametrize("when", ["made", "left"])
def test_a_folder_that_is_swapped_for_one_of_root_is_not_handed_over(local_runs, theirs, monkeypatch, when):
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

    def stat_of(name, *arguments, **named):  # what is made is looked at once, and opened later
        found = REAL["stat"](name, *arguments, **named)
        if name == b"folder" and (theirs / "secret").exists():
            swap()
        return found

    monkeypatch.setattr(os, *(("mkdir", mkdir) if when == "made" else ("stat", stat_of)))
    report = local_runs.restore(theirs)
    monkeypatch.undo()
    assert report.issue_count >= 1
    found = (theirs / "folder").stat()
    assert (found.st_ino, found.st_uid, os.listdir(theirs / "folder")) == (inode, 0, ["secret"])


@needs_root
def test_a_program_of_theirs_does_not_become_one_that_runs_as_root(local_runs, tmp_path):
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
def test_in_folders_of_root_owners_are_repaired_in_place(local_runs, theirs):
    local_runs.restore(theirs)
    inode = (theirs / "file").stat().st_ino
    for path in (theirs, theirs / "file", theirs / "folder", theirs / "folder" / "in"):
        os.chown(path, 0, 0)
    report = local_runs.restore(theirs)
    assert (report.new, report.issue_count) == (0, 0)
    assert (theirs / "file").stat().st_ino == inode
    assert seen(theirs) == seen(theirs.parent / "source")


# --- depth ---


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
