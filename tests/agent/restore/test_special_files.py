"""Special files in a restore: symlinks, FIFOs and devices are kept while they match, and otherwise replaced."""

from __future__ import annotations

import os

import pytest

from support.archives.agent import seen, write


def others(path):
    """A symlink, a fifo and a device, each with two names."""
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


def test_special_files_keep_their_names_and_are_not_rewritten_while_they_match(local_runs, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    count = others(source)
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


SPOILERS = {
    "mode": lambda target: (target / "first" / "fifo").chmod(0o600),
    "time": lambda target: os.utime(target / "first" / "fifo", ns=(1, 1)),
    "name elsewhere": lambda target: os.link(target / "first" / "fifo", target.parent / "elsewhere"),
    "kind": lambda target: (target / "first" / "fifo").unlink() or (target / "first" / "fifo").write_bytes(b""),
    "link": another_link,
    "owner": lambda target: os.chown(target / "first" / "link", 1, 1, follow_symlinks=False),
    "device": another_device,
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_a_special_file_that_differs_is_replaced(local_runs, tmp_path, spoiler):
    source, target = tmp_path / "source", tmp_path / "target"
    others(source)
    local_runs.backup(source)
    local_runs.restore(target)
    if spoiler in ("owner", "device") and os.geteuid() != 0:
        pytest.skip("only root may do this")
    SPOILERS[spoiler](target)
    tried = local_runs.restore(target, dry_run=True)
    report = local_runs.restore(target)
    assert (tried.new, tried.unchanged) == (report.new, report.unchanged)
    assert report.new
    assert seen(target) == seen(source)
