"""Guard against name collisions: targets that ignore case, or have a folder mounted twice."""

from __future__ import annotations

import os
import subprocess

import pytest

from support.archives.agent import contents, write
from support.faults.os_calls import case_blind
from support.faults.small_disk import can_mount

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
def test_names_that_collide_in_the_target_are_issues(local_runs, tmp_path, monkeypatch, tree, delete, before):
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
        is_reported = any(path.lower() == each or path.lower().startswith(each + b"/") for each in wrong)
        assert data in [there[name] for name in names] or is_reported, path
    if delete:
        assert {name.lower() for name in there} <= {path.lower() for path in archived}
    elif before:
        assert any(name.lower() == b"sub/y" for name in there)


@pytest.mark.parametrize("overwrite", ["changed", "always", "newer"])
def test_delete_keeps_entries_restored_under_another_case(local_runs, tmp_path, monkeypatch, overwrite):
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


def test_two_links_to_one_existing_file_are_not_a_collision(local_runs, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"a": b"a", "b": b"b"})
    local_runs.backup(source)
    write(target, {"a": b"same"})
    os.link(target / "a", target / "b")
    report = local_runs.restore(target)
    assert report.issue_count == 0
    assert contents(target) == contents(source)


@pytest.mark.skipif(not can_mount(), reason="only root may mount")
def test_a_folder_mounted_twice_is_restored_once_and_reported(local_runs, tmp_path):
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
