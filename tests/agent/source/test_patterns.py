"""Patterns: the paths that they match, compared with those that git ignores."""

from __future__ import annotations

import os
import subprocess
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostore.agent.backup.run import BackupOptions, dry_run
from cryostore.agent.report import Report
from cryostore.agent.source.selection import EXCLUDED, Patterns, Selection
from cryostore.core.errors import ConfigurationError
from support.archives.agent import write

COVERS = ("agent/source/selection.py",)


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
        ("a/**/c", b"x/a/c", False, True),
        ("a/**", b"a", True, False),
        ("[[:digit:]]", b"7", False, True),
        ("\\#r ", b"#r", False, True),
        ("a\\ ", b"a ", False, True),
        ("x\ny", b"x\ny", False, True),
        ("*\udcff", b"name\xff", False, True),
    ],
)
def test_patterns_match_as_in_gitignore(pattern, path, is_directory, fits):
    assert Patterns([pattern]).fit(path, is_directory=is_directory) is fits


def test_a_later_pattern_can_include_a_path_again():
    patterns = Patterns(["# all objects", "*.o", "", "!a/keep.o"])
    assert patterns.fit(b"x.o", is_directory=False)
    assert not patterns.fit(b"x/a/keep.o", is_directory=False)


@pytest.mark.parametrize("pattern", ["[a", "a\\", "[[:nothing:]]", "[z-a]", "[!z-a]"])
def test_the_error_names_a_malformed_pattern(pattern):
    with pytest.raises(ConfigurationError) as refused:
        Patterns(["a", pattern])
    assert ascii(pattern) in refused.value.message


# --- git, on a real tree ----------------------------------------------------------------------------------------------

FILES = ("a", "b", "ab", "k.xlsx", "a.txt", "#r", "!x", "a b", "a ", "[a]", "-", "B", "a*", "\\")
FOLDERS = ("a", "sub", "sub.d", "x")
NAMES = dict.fromkeys(FILES, b"")
TREE = {f"{folder}_": {f"{below}.": NAMES for below in FOLDERS} | NAMES for folder in FOLDERS} | NAMES

# fmt: off
PARTS = st.sampled_from([
    "a", "b", "ab", "*", "**", "***", "?", "a*", "*.xlsx", "*.txt", "sub*", "x_", "a_", "sub_", "sub.d_", "a.", "x.",
    "[ab]", "[!a]", "[^a-z]", "[]-]", "[[:alpha:]]*", "[a-", "[z-a]", "\\*", "\\#r", "#r", "!x", "a\\ ", "a ", "[[]a]",
    "[b-a]", "[\\]a]", "[a\\-z]", "\\\\", "-", "[--a]", "*[.]*", "[A-Z]", "[[:up", "[[:upper:]]", "", ".*", "*_", "*.",
])
# fmt: on
LINES = st.builds(
    lambda mark, top, parts, end: mark + top + "/".join(parts) + end,
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "", "", "/"]),
    st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", " ", "/ "]),
)


@pytest.fixture(scope="module")
def work_tree(tmp_path_factory):
    place = tmp_path_factory.mktemp("git")
    write(place / "tree", TREE)
    subprocess.run(["git", "init", "--quiet", "--bare", place / "git"], check=True)
    return place


def is_well_formed(line):
    try:
        Patterns([line])
    except ConfigurationError:
        return False
    return True


def with_mark(line, change):
    """The line with its pattern, the part after `!`, changed."""
    return "!" + change(line[1:]) if line.startswith("!") else change(line)


def for_git(line):
    """A pattern with a slash in its middle matches at every depth here."""
    text = line.rstrip(" ").removesuffix("/")
    return f"**/{line}" if "/" in text and not text.startswith(("/", "**/", "#")) else line


def ignored_by_git(place, lines):
    (place / "lines").write_bytes(os.fsencode("\n".join([with_mark(line, for_git) for line in lines] + [""])))
    git = ["git", "-c", f"core.excludesFile={place}/lines", f"--git-dir={place}/git", f"--work-tree={place}/tree"]
    paths = all_paths(place)
    done = subprocess.run(
        [*git, "check-ignore", "--no-index", "-z", "--stdin"],
        input=b"".join(path + b"\0" for path in paths), capture_output=True, cwd=place / "tree", check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return set(done.stdout.split(b"\0")) - {b""}


def all_paths(place, select=None):
    found = []
    options = BackupOptions(root=os.fsencode(place / "tree"), vault="", resource="", select=select)
    dry_run(options, Report(), found.append)
    return sorted(found)


@settings(max_examples=200)
@given(st.lists(LINES, min_size=1, max_size=6))
def test_a_run_excludes_the_paths_that_git_ignores(work_tree, lines):
    lines = [line for line in lines if is_well_formed(line)]
    root = str(work_tree / "tree")
    ours = [with_mark(line, lambda text: root + text if text.startswith("/") else text) for line in lines]
    kept = set(all_paths(work_tree, Selection(os.fsencode(root), ours)))
    assert set(all_paths(work_tree)) - kept == ignored_by_git(work_tree, lines)


@given(st.sampled_from(["[a", "a\\", "[[:nothing:]]", "[\\", "[z-a]"]))
def test_git_ignores_nothing_for_a_malformed_pattern(work_tree, line):
    assert ignored_by_git(work_tree, [line]) == set()


def test_excluded_entries_are_counted():
    skipped = Counter()
    select = Selection(b"/srv", ["*", "!*/", "!*.xlsx"], skipped=skipped)
    assert [select(name, 0o100644, 0) for name in (b"a.txt", b"sub/a.txt", b"sub/k.xlsx")] == [False, False, True]
    assert select(b"sub", 0o040755, 0)
    assert skipped == {EXCLUDED: 2}
