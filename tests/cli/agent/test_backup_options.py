"""Options of `cryo backup`: patterns, sizes, names, and combinations that are refused."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stdout

import pytest

from cryostore.cli.exit_codes import FAILED, OK
from cryostore.cli.verbs import run
from support.archives.agent import seen, write


def test_patterns_and_sizes_exclude_entries(cryo, source, tmp_path):
    write(source, {"big": b"x" * 3000, "keep.o": b"", "drop.o": b"", "node_modules": {"deep": b""}})
    patterns = tmp_path / "patterns"
    patterns.write_text("# objects\n*.o\n!keep.o\n")
    options = ("--exclude", "node_modules", "--exclude-file", patterns, "--exclude-larger-than", "2K")
    assert cryo("backup", source, *options, "--exclude", f"{source}/folder/other")[0] == OK
    cryo("restore", "latest", tmp_path / "target")
    assert set(seen(tmp_path / "target")) == {b"", b"file", b"folder", b"keep.o", b"\x1b[2J\n"}


def names_of(*arguments):
    """Return the exit code of a dry run, the listed paths, and all lines of the result."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = run(["backup", "--dry-run", "--list", "--json", *map(os.fspath, arguments)])
    facts = [json.loads(line) for line in printed.getvalue().splitlines()]
    return code, sorted(fact["path"] for fact in facts if fact["type"] == "entry"), facts


def test_a_pattern_for_a_folder_above_the_path_has_no_effect(tmp_path):
    write(tmp_path / "lib" / "data", {"x": {"a": b""}, "lib": {"c": b""}})
    assert names_of("--exclude", "lib/", tmp_path / "lib" / "data")[:2] == (0, ["x", "x/a"])
    assert names_of("--exclude", "data", tmp_path / "lib" / "data")[1] == ["lib", "lib/c", "x", "x/a"]


def test_a_number_sign_is_a_name_on_the_command_line_and_a_comment_in_a_file(tmp_path):
    write(tmp_path / "source", {"#recycle": {"a": b""}, "b": b""})
    assert names_of("--exclude", "#recycle", tmp_path / "source")[1] == ["b"]
    (tmp_path / "lines").write_bytes(b"\xef\xbb\xbf# a comment\r\n#recycle\r\nb\r\n")
    assert names_of("--exclude-file", tmp_path / "lines", tmp_path / "source")[1] == ["#recycle", "#recycle/a"]


@pytest.mark.parametrize("paths", [["source"], ["source", "other"]])
def test_patterns_that_exclude_everything_are_an_issue(tmp_path, paths):
    write(tmp_path / "source", {"a": {"b": b""}})
    (tmp_path / "other").mkdir()
    code, _, facts = names_of("--exclude", "*", *(tmp_path / path for path in paths))
    assert code == 1
    assert "empty" in next(fact["reason"] for fact in facts if fact["type"] == "issue")
    assert names_of("--exclude", "*", tmp_path / "other")[0] == 0


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--exclude", "[z-a]"), "invalid pattern"),
        (("--exclude-larger-than", "-5"), "invalid size '-5'"),
        (("",), "a PATH is empty"),
    ],
)
def test_an_invalid_option_is_refused(cryo, source, option, says):
    code, _, err = cryo("backup", source, *option)
    assert code == FAILED
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["", "evil\x9b31m"])
def test_an_invalid_resource_name_is_refused_before_anything_is_read(cryo, source, tmp_path, name):
    code, _, err = cryo("backup", source, "--resource", name)
    assert code == FAILED
    assert "is empty or contains control characters or invalid UTF-8" in err
    assert not (tmp_path / "data").exists()


def test_a_path_that_one_file_system_would_exclude_is_refused(cryo, source):
    code, _, err = cryo("backup", "/", "/proc", "--one-file-system", "--dry-run")
    assert code == FAILED
    assert "'/proc' lies inside another PATH, and --one-file-system leaves it out" in err
    assert cryo("backup", source, source / "folder", "--one-file-system", "--dry-run")[0] == OK
