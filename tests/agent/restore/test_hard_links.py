"""Hard links in a restore: created, separated, and never made to a file that was kept."""

from __future__ import annotations

import os

import pytest

from support.archives.agent import seen, write

OLDER = 900_000_000_000_000_000


def linked(root, first, *names):
    for name in names:
        os.link(root / first, root / name)


def names_of(root):
    """The names in a folder, grouped by file."""
    found = {}
    for entry in sorted(os.listdir(root)):
        found.setdefault((root / entry).stat().st_ino, []).append(entry)
    return sorted(found.values())


def dated(root):
    for name in os.listdir(root):
        os.utime(root / name, ns=(1, OLDER))


@pytest.fixture
def two_names(local_runs, tmp_path):
    """A backed up tree: a file with the names a and b, and a file c of the same length and time."""
    write(tmp_path / "source", {"a": b"same length", "c": b"other bytes"})
    linked(tmp_path / "source", "a", "b")
    dated(tmp_path / "source")
    local_runs.backup(tmp_path / "source")
    return tmp_path / "source"


def test_two_existing_files_become_one_file_with_several_names(local_runs, two_names, tmp_path):
    write(tmp_path / "target", {"a": b"same length", "b": b"same length", "c": b"other bytes"})
    dated(tmp_path / "target")
    report = local_runs.restore(tmp_path / "target")
    assert names_of(tmp_path / "target") == [["a", "b"], ["c"]]
    assert report.new == 1
    assert local_runs.restore(tmp_path / "target").new == 0


@pytest.mark.parametrize("joined", [["a", "c"], ["a", "b", "c"], ["b", "c"]])
def test_one_existing_file_becomes_two_files(local_runs, two_names, tmp_path, joined):
    write(tmp_path / "target", {joined[0]: b"same length"})
    linked(tmp_path / "target", *joined)
    dated(tmp_path / "target")
    local_runs.restore(tmp_path / "target")
    assert names_of(tmp_path / "target") == [["a", "b"], ["c"]]
    assert seen(tmp_path / "target") == seen(two_names)


def test_a_file_with_a_name_outside_the_target_is_not_changed(local_runs, two_names, tmp_path):
    write(tmp_path / "outside", {"kept": b"other bytes"})
    os.chmod(tmp_path / "outside" / "kept", 0o600)
    os.utime(tmp_path / "outside" / "kept", ns=(1, OLDER))
    (tmp_path / "target").mkdir()
    os.link(tmp_path / "outside" / "kept", tmp_path / "target" / "c")
    before = seen(tmp_path / "outside")
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "outside")[b"kept"] == before[b"kept"] | {"names": 1}
    assert seen(tmp_path / "target") == seen(two_names)


@pytest.mark.parametrize("overwrite", ["never", "newer"])
def test_no_name_is_linked_to_an_existing_file_that_was_kept(local_runs, two_names, tmp_path, overwrite):
    write(tmp_path / "target", {"a": b"another file"})
    local_runs.restore(tmp_path / "target", overwrite=overwrite)
    assert (tmp_path / "target" / "a").read_bytes() == b"another file"
    assert (tmp_path / "target" / "b").read_bytes() == b"same length"


def test_names_of_two_files_are_separated(local_runs, two_names, tmp_path):
    """In the target, a and c are one file; in the archive, they are two files with another name each."""
    linked(two_names, "c", "d")
    dated(two_names)
    local_runs.backup(two_names)
    write(tmp_path / "target", {"a": b"same length"})
    linked(tmp_path / "target", "a", "c")
    dated(tmp_path / "target")
    local_runs.restore(tmp_path / "target")
    assert names_of(tmp_path / "target") == [["a", "b"], ["c", "d"]]
    assert seen(tmp_path / "target") == seen(two_names)
