"""Failing system calls of a restore: each affects at most one entry, and the report names it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil

import pytest

from cryostore.agent.errors import TargetError
from cryostore.agent.report import Report
from cryostore.agent.restore.tree_restore import TreeRestoreOptions, restore_tree
from cryostore.core.errors import NO_SPACE_ERRNOS, StorageFullError
from support.archives.agent import seen, write
from support.faults.os_calls import REAL, failing

CODES = [
    errno.EPERM,
    errno.EACCES,
    errno.EIO,
    errno.ENOENT,
    errno.EEXIST,
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EROFS,
    errno.EBUSY,
    errno.ESTALE,
    errno.ENAMETOOLONG,
    errno.EMFILE,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOSPC,
    errno.EDQUOT,
]


def sparse(path):
    with open(path, "wb") as file:
        file.seek(2_000_000)
        file.write(b"end")


@pytest.fixture
def source(local_runs, tmp_path):
    """A backed up tree with two entries of each kind."""
    source = tmp_path / "source"
    kinds = {
        "empty": b"",
        "small": b"small",
        "large": os.urandom(3_000_000),
        "sparse": sparse,
        "link": lambda path: os.symlink("elsewhere", path),
        "pipe": os.mkfifo,
        "folder": {"inside": b"inside", "deep": {"file": b"deep"}},
        "nothing": {},
        "first": b"two names",
        "pipe first": os.mkfifo,
    }
    write(source, {"one": kinds, "two": kinds})
    for side in ("one", "two"):
        os.link(source / side / "first", source / side / "folder" / "second")
        os.link(source / side / "pipe first", source / side / "pipe second")
        for name in ("small", "folder"):
            os.setxattr(source / side / name, "user.note", b"note")
        os.chmod(source / side / "large", 0o640)
        if os.geteuid() == 0:
            os.chown(source / side / "small", 4242, 4242)
            os.mknod(source / side / "device", 0o020640, os.makedev(1, 5))
    local_runs.backup(source)
    return source


def write_existing(source, target):
    """Write a target that differs from the source in many entries."""
    shutil.copytree(source / "one", target / "one", symlinks=True, copy_function=copied)
    write(
        target,
        {"one": {"surplus": {"a": b"", "b": {"c": b""}}}, "two": {"small": b"other", "link": b"", "folder": b""}},
    )
    os.chmod(target / "one" / "small", 0o600)
    os.remove(target / "one" / "empty")


def copied(source, target):
    if os.path.isfile(source):
        shutil.copy2(source, target)


def differing(source, target):
    """The paths whose entries differ from the source."""
    there = seen(target) if target.exists() else {}
    here = seen(source)
    return {path for path in here.keys() | there.keys() if here.get(path) != there.get(path)}


def is_family(paths, names):
    """Whether all paths belong to one entry: its path, paths below it, or its other names."""
    below = [path for path in paths if not any(path.startswith(other + b"/") or not other for other in paths - {path})]
    return len(below) <= 1 or any(set(below) <= group for group in names)


NAMES = [{side + b"/first", side + b"/folder/second", side + b"/folder"} for side in (b"one", b"two")] + [
    {side + b"/pipe first", side + b"/pipe second"} for side in (b"one", b"two")
]


def opened():
    """The paths of the open files of this process."""
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/self/fd/{fd}")


def try_one(archive, source, target, monkeypatch, name, code, at):
    """Restore while one call fails; return whether the run made that call."""
    report = Report()
    is_end = False
    with failing(monkeypatch, name, code, at=at) as calls:
        try:
            restore_tree(archive, TreeRestoreOptions(target=os.fsencode(target), delete=True), report)
        except StorageFullError:
            assert code in NO_SPACE_ERRNOS
            is_end = True
        except TargetError as error:
            assert error.path == os.fsencode(target)
            is_end = True
    assert not [path for path in opened() if path.startswith(os.fspath(target))]
    if len(calls) <= at:
        assert report.issue_count == 0
        assert not differing(source, target)
        return False
    what = (name, errno.errorcode[code], at, calls[at][:2])
    if not is_end:
        wrong = differing(source, target)
        assert is_family(wrong, NAMES), (what, wrong)
        is_gone = code == errno.ENOENT and all(b"surplus" in path for path in wrong)  # such an entry needs no removal
        if not is_gone:
            assert not wrong or report.issue_count, (what, wrong)
    left = [path for path in seen(target) if b".cryo-restore-" in path] if target.exists() else []
    assert name == "unlink" or not left, (what, left)
    return True


def try_all(runs, source, tmp_path, monkeypatch, name, before, *, step, shift=0):
    """Restore once for every `step`-th call of `name`: that call fails, with each error number in turn."""
    codes = itertools.cycle(CODES[shift:] + CODES[:shift])
    with runs.opened() as archive:
        for at in itertools.count(0, step):
            target = tmp_path / f"target-{at}"
            if before:
                target.mkdir()
                write_existing(source, target)
            if not try_one(archive, source, target, monkeypatch, name, next(codes), at):
                break
            shutil.rmtree(target, ignore_errors=True)


@pytest.mark.parametrize("before", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize("name", sorted(REAL))
def test_a_failing_call_affects_one_entry(local_runs, source, tmp_path, monkeypatch, name, before):
    try_all(local_runs, source, tmp_path, monkeypatch, name, before, step=4)


@pytest.mark.stress
@pytest.mark.parametrize("before", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize("shift", [0, 4, 9, 13])
@pytest.mark.parametrize("name", sorted(REAL))
def test_every_failing_call_affects_one_entry(local_runs, source, tmp_path, monkeypatch, name, shift, before):
    try_all(local_runs, source, tmp_path, monkeypatch, name, before, step=1, shift=shift)
