"""Special files in a restore: symlinks, FIFOs and devices are kept if they match, and replaced if not."""

from __future__ import annotations

import os

import pytest

from support.archives.agent import seen, write


def write_special_files(path):
    """Create a symlink, a FIFO and, as root, a device, each with two names; return how many."""
    tree = {
        "link": lambda place: os.symlink("somewhere", place),
        "fifo": lambda place: os.mkfifo(place, 0o640),
    }
    if os.geteuid() == 0:
        tree["device"] = lambda place: os.mknod(place, 0o020640, os.makedev(1, 5))
    write(path, {"first": tree, "second": {}})
    for name in tree:
        os.link(path / "first" / name, path / "second" / name, follow_symlinks=False)
    return len(tree)


def test_special_files_keep_their_names_and_are_not_replaced_if_they_match(local_runs, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    count = write_special_files(source)
    local_runs.backup(source)
    report = local_runs.restore(target)
    assert (report.new, report.unchanged, report.issue_count) == (2 * count, 0, 0)
    assert seen(target) == seen(source)
    inodes = [(target / folder / "fifo").stat().st_ino for folder in ("first", "second")]
    assert len(set(inodes)) == 1
    report = local_runs.restore(target)
    assert (report.new, report.unchanged) == (0, 2 * count)
    assert (target / "first" / "fifo").stat().st_ino == inodes[0]


def another_link(target):
    (target / "second" / "link").unlink()
    os.symlink("elsewhere", target / "second" / "link")


def another_device(target):
    (target / "first" / "device").unlink()
    os.mknod(target / "first" / "device", 0o020640, os.makedev(1, 3))


DIFFERENCES = {
    "mode": lambda target: (target / "first" / "fifo").chmod(0o600),
    "time": lambda target: os.utime(target / "first" / "fifo", ns=(1, 1)),
    "name elsewhere": lambda target: os.link(target / "first" / "fifo", target.parent / "elsewhere"),
    "kind": lambda target: (target / "first" / "fifo").unlink() or (target / "first" / "fifo").write_bytes(b""),
    "link": another_link,
    "owner": lambda target: os.chown(target / "first" / "link", 1, 1, follow_symlinks=False),
    "device": another_device,
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_special_file_that_differs_is_replaced(local_runs, tmp_path, difference):
    source, target = tmp_path / "source", tmp_path / "target"
    write_special_files(source)
    local_runs.backup(source)
    local_runs.restore(target)
    if difference in ("owner", "device") and os.geteuid() != 0:
        pytest.skip("only root may do this")
    DIFFERENCES[difference](target)
    planned = local_runs.restore(target, dry_run=True)
    report = local_runs.restore(target)
    assert (planned.new, planned.unchanged) == (report.new, report.unchanged)
    assert report.new
    assert seen(target) == seen(source)
