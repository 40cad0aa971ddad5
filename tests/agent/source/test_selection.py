"""Selection of source entries: the root of the paths, what is stored below it, and what is left out."""

from __future__ import annotations

import os
import socket

import pytest

from cryostore.agent.source.selection import Selection, rooted
from cryostore.core.errors import ConfigurationError
from support.archives.agent import seen, write

TREE = {"real": {"x": b"x", "y": {"z": b"z"}}, "c": b"c", "other": {"o": b"o", "sub": {"deep": b"deep"}}}


def test_a_selection_compares_the_whole_path_and_the_size():
    select = Selection(b"/srv/user", ["/srv/user/.cache", "*.tmp"], 1000)
    assert not select(b".cache", 0o040755, 0)
    assert not select(b"a/b.tmp", 0o100644, 1)
    assert select(b"a/.cache", 0o040755, 0)
    assert select(b"file", 0o100644, 1000)
    assert not select(b"file", 0o100644, 1001)
    assert select(b"link", 0o120777, 5000)


def test_a_path_and_the_folders_above_it_are_never_excluded():
    select = Selection(b"/srv", ["lib", "*.o", "/srv", "/srv/app"], only=frozenset({b"lib/app", b"x.o"}))
    assert all(select(path, 0o040755, 0) for path in (b"lib", b"lib/app", b"lib/app/srv"))
    assert select(b"x.o", 0o100644, 0)
    assert not select(b"lib/app/lib", 0o040755, 0)
    assert not select(b"lib/app/x.o", 0o100644, 0)


def test_the_root_of_several_paths_is_their_common_folder(tmp_path):
    write(tmp_path, {"a": {"x": b"", "y": {}}, "b": b""})
    root = os.fsencode(tmp_path)
    assert rooted([root + b"/a"]) == (root + b"/a", None)
    assert rooted([root + b"/a/x"]) == (root + b"/a", frozenset({b"x"}))
    assert rooted([root + b"/a/x", root + b"/b"]) == (root, frozenset({b"a/x", b"b"}))
    assert rooted([root + b"/a", root + b"/a/y"]) == (root + b"/a", frozenset({b"", b"y"}))
    assert rooted([b"/"]) == (b"/", None)
    with pytest.raises(ConfigurationError, match="does not exist"):
        rooted([root + b"/c"])


@pytest.fixture
def source(tmp_path, monkeypatch):
    """The parent of the working directory. That has symlinks: `link` to a folder beside it, `inner` to one in it."""
    write(tmp_path / "top" / "source", TREE)
    write(tmp_path / "top" / "beside", {"b": b"b", "sub": {"s": b"s"}})
    (tmp_path / "top" / "source" / "link").symlink_to("../beside")
    (tmp_path / "top" / "source" / "inner").symlink_to("real")
    monkeypatch.chdir(tmp_path / "top" / "source")
    return tmp_path / "top"


def backed_up(runs, paths, listed=(), *, patterns=(), **options):
    """Back the paths up; return the root, and the issues as text."""
    root, only = rooted([os.fsencode(path) for path in paths], [os.fsencode(path) for path in listed])
    select = Selection(root, patterns, only=only) if patterns else None
    report, _ = runs.backup(root, only=only, select=select, **options)
    return os.fsdecode(root), [f"{os.fsdecode(issue.path)}: {issue.reason}" for issue in report.issues]


def restored(runs, target, root):
    """Restore the last recovery point; return the paths of its files and symlinks, which must equal the source."""
    assert runs.restore(target).issue_count == 0
    found, there = seen(target), seen(root)
    leaves = {path for path in found if path and not os.path.isdir(os.path.join(os.fsencode(target), path))}
    leaves |= {path for path in found if os.path.islink(os.path.join(os.fsencode(target), path))}
    keys = ("mode", "owner", "mtime_ns", "content", "target")
    for path in leaves:
        assert [found[path].get(key) for key in keys] == [there[path].get(key) for key in keys]
    return {os.fsdecode(path) for path in leaves}


@pytest.mark.parametrize(
    ("paths", "root", "stored"),
    [
        (["link/b", "c"], "", {"beside/b", "source/c"}),
        (["link/sub", "c"], "", {"beside/sub/s", "source/c"}),
        (["inner/x", "c"], "source", {"real/x", "c"}),
        (["inner/x", "real/x"], "source/real", {"x"}),
        (["inner/x", "inner/y"], "source/inner", {"x", "y/z"}),
        ([".", "link/b"], "", {"beside/b", "source/c", "source/inner", "source/link", "source/real/x"}),
        (["link", "c"], "", {"beside/b", "beside/sub/s", "source/link", "source/c"}),
        (["link/", "c"], "", {"beside/b", "beside/sub/s", "source/link", "source/c"}),
        (["link/.", "link"], "source/link", {"b", "sub/s"}),
        (["inner", "inner/y/z"], "source/inner", {"x", "y/z"}),
        (["link/../source/c"], "source", {"c"}),
        (["link/..", "c"], "", {"beside/b", "source/c", "source/link"}),
        (["real/../c", "./c", "c"], "source", {"c"}),
        (["c/", "real//x", "real/./x"], "source", {"c", "real/x"}),
        (["real", "real/y", "real/y/z"], "source/real", {"x", "y/z"}),
        (["real/y/z", "other", "other/sub"], "source", {"real/y/z", "other/o", "other/sub/deep"}),
    ],
)
def test_each_path_is_restored_from_its_real_location(local_runs, source, tmp_path, paths, root, stored):
    at, issues = backed_up(local_runs, paths)
    assert (at, issues) == (str(source / root), [])
    assert restored(local_runs, tmp_path / "target", at) >= stored


def test_listed_symlinks_stay_symlinks_and_their_targets_are_found(local_runs, source, tmp_path):
    root, issues = backed_up(local_runs, [], ["link", "link/b", "inner", "c"])
    assert issues == []
    assert restored(local_runs, tmp_path / "target", root) == {"source/link", "beside/b", "source/inner", "source/c"}
    root, issues = backed_up(local_runs, ["c"], ["inner/", "link/sub/s"])
    assert issues == []
    assert restored(local_runs, tmp_path / "second", root) == {"source/c", "source/real/x", "source/real/y/z"} | {
        "source/inner",
        "beside/sub/s",
    }


def test_a_path_that_leads_nowhere_is_an_issue(local_runs, source, tmp_path):
    (source / "source" / "loop").symlink_to("loop")
    (source / "source" / "dangling").symlink_to("nowhere")
    root, issues = backed_up(local_runs, ["c", "link/gone", "loop/x", "dangling/x", "c/below", "dangling"])
    assert len(issues) == 4
    assert {"source/c", "source/dangling"} <= restored(local_runs, tmp_path / "target", root)


@pytest.mark.parametrize("options", [{"patterns": ("sub", "deep")}, {"markers": frozenset({b"o"})}])
def test_a_path_in_an_excluded_folder_is_stored(local_runs, source, tmp_path, options):
    write(source / "source" / "other" / "sub" / "more", {"left": b"left"})
    for paths in (["other", "other/sub/deep", "c"], ["other", "other/sub/deep"], [".", "other/sub/deep"]):
        root, issues = backed_up(local_runs, paths, **options)
        assert issues == []
        target = tmp_path / f"target-{'-'.join(paths).replace('/', '_')}"
        found = {path.rpartition("/")[2] for path in restored(local_runs, target, root)}
        assert "deep" in found
        assert "left" not in found


def test_only_the_path_in_an_excluded_folder_is_stored(local_runs, source, tmp_path):
    """Folders between an excluded one and the PATH in it are stored; entries beside them are not."""
    write(source / "source" / "other" / "sub" / "between" / "named", {"in": b"in"})
    write(source / "source" / "other" / "sub" / "between", {"beside": b"beside"})
    root, issues = backed_up(local_runs, ["other", "other/sub/between/named"], patterns=("sub",))
    assert issues == []
    assert restored(local_runs, tmp_path / "target", root) == {"o", "sub/between/named/in"}


def test_a_path_that_is_a_file_beside_a_marker_is_stored(local_runs, source, tmp_path):
    root, issues = backed_up(local_runs, ["other/o", "other/sub/deep"], markers=frozenset({b"o", b"deep"}))
    assert issues == []
    assert restored(local_runs, tmp_path / "target", root) == {"o", "sub/deep"}


def test_a_folder_above_a_path_that_changes_during_the_run_is_an_issue(local_runs, source, tmp_path):
    def replace(path):
        if path == b"c":
            (source / "source" / "other" / "sub").rename(source / "moved")
            (source / "source" / "other" / "sub").symlink_to("../../moved")

    root, issues = backed_up(local_runs, ["c", "other/sub/deep", "other/o"], before_read=replace)
    reason = "cannot be reached: a folder above it was removed or replaced"
    assert issues == [f"other/sub/deep: {reason}"]
    assert {"c", "other/o"} <= restored(local_runs, tmp_path / "target", root)


def test_a_path_within_the_store_is_an_issue(local_runs, source):
    _, issues = backed_up(local_runs, ["c", "real/y/z"], stores=frozenset({b"real"}))
    assert issues == ["real: is the store itself, which is not backed up into itself"]


def test_a_socket_behind_a_symlink_is_an_issue(local_runs, source):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("link/socket")
        _, issues = backed_up(local_runs, ["c", "link/socket"])
    assert issues == ["beside/socket: is a socket, which has no content"]
