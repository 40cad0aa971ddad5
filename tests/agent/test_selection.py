"""What is wanted: roots, patterns, sizes; and how people name paths and recovery points."""

from __future__ import annotations

import os

import pytest

from cryostore.agent.errors import shown
from cryostore.agent.listing import entries, path_in
from cryostore.agent.patterns import Patterns
from cryostore.agent.points import split_point
from cryostore.agent.roots import rooted
from cryostore.agent.selection import Selection
from cryostore.core.errors import ConfigurationError
from support.agent import write


@pytest.mark.parametrize(
    ("pattern", "path", "is_directory", "fits"),
    [
        ("*.o", b"a/b/c.o", False, True),
        ("*.o", b"a/b/c.c", False, False),
        ("cache", b"a/cache/b", False, True),
        ("cache/", b"a/cache", True, True),
        ("cache/", b"a/cache", False, False),
        ("a/b", b"x/a/b", False, True),
        ("/a/b", b"x/a/b", False, False),
        ("/a/b", b"a/b/c", False, True),
        ("a/*/c", b"a/b/c", False, True),
        ("*\udcff", b"name\xff", False, True),
    ],
)
def test_patterns_fit_as_gitignore_says(pattern, path, is_directory, fits):
    assert Patterns([pattern]).fit(path, is_directory=is_directory) is fits


def test_a_later_pattern_takes_back():
    patterns = Patterns(["# all objects", "*.o", "", "!a/keep.o"])
    assert patterns.fit(b"x.o", is_directory=False)
    assert not patterns.fit(b"x/a/keep.o", is_directory=False)


def test_selections_see_the_whole_path_and_the_size():
    select = Selection(b"/srv/user", ["/srv/user/.cache", "*.tmp"], 1000)
    assert not select(b".cache", 0o040755, 0)
    assert not select(b"a/b.tmp", 0o100644, 1)
    assert select(b"a/.cache", 0o040755, 0)
    assert select(b"file", 0o100644, 1000)
    assert not select(b"file", 0o100644, 1001)
    assert select(b"link", 0o120777, 5000)


def test_the_root_of_several_paths_is_the_folder_that_has_them(tmp_path):
    write(tmp_path, {"a": {"x": b"", "y": {}}, "b": b""})
    root = os.fsencode(tmp_path)
    assert rooted([root + b"/a"]) == (root + b"/a", None, [])
    assert rooted([root + b"/a/x"]) == (root + b"/a", frozenset({b"x"}), [])
    assert rooted([root + b"/a/x", root + b"/b"]) == (root, frozenset({b"a/x", b"b"}), [])
    assert rooted([root + b"/a", root + b"/a/y"]) == (root + b"/a", None, [])
    assert rooted([b"/"]) == (b"/", None, [])
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
            assert path_in(archive, text) == b"a"
        for text in ("", ".", "/", f"{tmp_path}/source"):
            assert path_in(archive, text) == b""
        assert [entry.path for entry in entries(archive, b"a")] == [b"a/b"]
        assert [entry.path for entry in entries(archive, b"a/b")] == [b"a/b"]
        assert [entry.path for entry in entries(archive, recursive=False)] == [b"a", b"c"]
        assert [entry.path for entry in entries(archive)] == [b"a", b"c", b"a/b"]
        with pytest.raises(ConfigurationError, match="has no 'd'"):
            list(entries(archive, b"d"))


def test_names_are_shown_so_that_they_do_nothing():
    assert shown("ä b".encode()) == "ä b"
    assert shown(b"\x1b[2J") == r"\x1b[2J"
    assert shown(b"a\nb\xff\\") == r"a\x0ab\xff\\"
    assert shown("\u202eevil".encode()) == r"\xe2\x80\xaeevil"
