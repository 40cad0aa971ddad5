"""Selection of entries by patterns and sizes; names of paths and recovery points on a command line."""

from __future__ import annotations

import os

import pytest

from cryostore.agent.archive.listing import archive_entries, archive_path
from cryostore.agent.archive.recovery_points import split_point
from cryostore.agent.archive.tree import ArchiveTree
from cryostore.agent.errors import shown
from cryostore.agent.source.roots import rooted
from cryostore.agent.source.selection import Selection
from cryostore.core.errors import ConfigurationError
from support.archives.agent import write


def test_selections_see_the_whole_path_and_the_size():
    select = Selection(b"/srv/user", ["/srv/user/.cache", "*.tmp"], 1000)
    assert not select(b".cache", 0o040755, 0)
    assert not select(b"a/b.tmp", 0o100644, 1)
    assert select(b"a/.cache", 0o040755, 0)
    assert select(b"file", 0o100644, 1000)
    assert not select(b"file", 0o100644, 1001)
    assert select(b"link", 0o120777, 5000)


def test_a_path_and_the_folders_above_it_are_never_left_out():
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


def test_a_point_and_a_path_are_told_apart():
    arn = "arn:aws:backup:local-1:000000000000:recovery-point:ID"
    assert split_point("latest") == ("latest", "")
    assert split_point("latest:/a:b") == ("latest", "/a:b")
    assert split_point(arn) == (arn, "")
    assert split_point(f"{arn}:a:b") == (arn, "a:b")


def test_paths_are_taken_from_the_root_or_from_the_top(local_runs, tmp_path):
    write(tmp_path / "source", {"a": {"b": b""}, "c": b""})
    local_runs.backup(tmp_path / "source")
    with local_runs.opened() as archive:
        for text in ("a", "./a/", "/a", f"{tmp_path}/source/a"):
            assert archive_path(archive, text) == b"a"
        for text in ("", ".", "/", f"{tmp_path}/source"):
            assert archive_path(archive, text) == b""
        tree = ArchiveTree(archive)
        assert [entry.path for entry in tree.entries(b"a")] == [b"a/b"]
        assert [entry.path for entry in tree.entries(b"a/b")] == [b"a/b"]
        assert [entry.path for entry in tree.entries(recursive=False)] == [b"a", b"c"]
        assert [entry.path for entry in tree.entries()] == [b"a", b"c", b"a/b"]
        assert list(tree.entries()) == list(archive_entries(archive))
        with pytest.raises(ConfigurationError, match="does not contain 'd'"):
            list(tree.entries(b"d"))


def test_control_characters_in_names_are_escaped():
    assert shown("ä b".encode()) == "ä b"
    assert shown(b"\x1b[2J") == r"\x1b[2J"
    assert shown(b"a\nb\xff\\") == r"a\x0ab\xff\\"
    assert shown("\u202eevil".encode()) == r"\xe2\x80\xaeevil"
