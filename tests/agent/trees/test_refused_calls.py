"""Refused system calls of a backup: an error of one entry neither ends the run nor affects other entries."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostore.agent.errors import SourceError
from cryostore.agent.report import Report
from cryostore.agent.verification.archive_check import verify_archive
from cryostore.core.limits import KIB, MIB
from support.archives.agent import Runs, seen, write
from support.faults.refusing_source import CALLS, RefusingSource

NUMBERS = itertools.count(1)
ERRNOS = [
    errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.EMFILE,
    errno.ENOMEM, errno.E2BIG, errno.ERANGE, errno.EINVAL, errno.ENOTSUP, errno.ENODATA, errno.ENOSYS, errno.ENXIO,
    errno.EBUSY, errno.EOVERFLOW, errno.ENAMETOOLONG, errno.ETIMEDOUT, errno.EINTR, errno.EREMOTEIO,
]  # fmt: skip
NO_FAILURES = {("lseek", errno.ENXIO), ("getxattr", errno.ENODATA)}
"""Errors that are regular results: no data after this offset, no such attribute, no attributes at all."""
NO_FAILURES |= {("listxattr", number) for number in (errno.ENOTSUP, errno.ENODATA, errno.ENOSYS)}
ENTRIES = ["", "small", "large", "sparse", "folder", "folder/in it", "empty folder", "link", "fifo"]
if os.geteuid() == 0:
    ENTRIES.append("device")


def write_tree(root):
    """Write a tree with an entry of each kind, with attributes where Linux allows them."""
    write(
        root,
        {
            "small": b"small",
            "large": random.Random(1).randbytes(700 * KIB),
            "sparse": b"",
            "folder": {"in it": b"in it", "below": {"file": b"below"}},
            "empty folder": {},
            "link": lambda path: os.symlink(b"nowhere", path),
            "fifo": os.mkfifo,
            "sibling": b"sibling",
        },
    )
    with (root / "sparse").open("r+b") as file:
        file.seek(MIB)
        file.write(b"behind a hole")
    if os.geteuid() == 0:
        os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    for name in ("", "small", "large", "sparse", "folder", "empty folder"):
        os.setxattr(root / name, "user.note", name.encode())


def check_refused_call(store, call, number, entry, times):
    """Back up a tree while calls for one entry fail: the other entries are complete, and this one is an issue."""
    folder = Path(tempfile.mkdtemp(prefix="cryo-faults-"))
    try:
        write_tree(folder / "source")
        target = folder / "source" / entry
        source = RefusingSource(target, call, number, times)
        runs = Runs(store, f"faults-{next(NUMBERS)}")
        try:
            with source.refusing():
                report, _ = runs.backup(folder / "source")
        except SourceError:
            assert not entry  # without its root, a tree cannot be backed up
            return
        with runs.opened() as archive:
            checked = Report()
            verify_archive(archive, checked, data=True)
        assert checked.issue_count == 0
        assert runs.restore(folder / "target").issue_count == 0
        expected, found = seen(folder / "source"), seen(folder / "target")
        below = {
            path for path in expected if path == entry.encode() or path.startswith(f"{entry}/".encode()) or not entry
        }
        assert {path: expected[path] for path in expected.keys() - below} == {
            path: found[path] for path in found.keys() - below
        }
        if not entry:
            assert b"" in found
        if found != expected and (call, number) not in NO_FAILURES:
            assert [issue.path for issue in report.issues] == [entry.encode()]
        assert report.issue_count <= 1
        again, _ = runs.backup(folder / "source")  # missing data does not count as unchanged
        assert again.issue_count == 0
        shutil.rmtree(folder / "target")
        runs.restore(folder / "target")
        if (call, number) not in NO_FAILURES:
            assert seen(folder / "target") == expected
    finally:
        shutil.rmtree(folder)


FAULTS = {
    "call": st.sampled_from(CALLS),
    "number": st.sampled_from(ERRNOS),
    "entry": st.sampled_from(ENTRIES),
    "times": st.sampled_from([1, -1]),
}


@settings(max_examples=40)
@given(**FAULTS)
def test_one_refused_call_affects_at_most_one_entry(store, call, number, entry, times):
    check_refused_call(store, call, number, entry, times)


@pytest.mark.stress
@pytest.mark.parametrize("call", CALLS)
def test_each_refused_call_affects_at_most_one_entry(store, call):
    for number, entry, times in itertools.product(ERRNOS, ENTRIES, [1, -1]):
        check_refused_call(store, call, number, entry, times)
