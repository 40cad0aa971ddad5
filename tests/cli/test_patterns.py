"""Patterns as the command line and pattern files give them."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stdout

import pytest

from cryostore.cli.verbs import run
from support.archives.agent import write


def names_of(*arguments):
    """Exit code of a dry run, the paths that it lists, and all that it says."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = run(["backup", "--dry-run", "--list", "--json", *map(os.fspath, arguments)])
    facts = [json.loads(line) for line in printed.getvalue().splitlines()]
    return code, sorted(fact["path"] for fact in facts if fact["type"] == "entry"), facts


def test_a_pattern_that_names_a_folder_above_the_path_changes_nothing(tmp_path):
    write(tmp_path / "lib" / "data", {"x": {"a": b""}, "lib": {"c": b""}})
    assert names_of("--exclude", "lib/", tmp_path / "lib" / "data")[:2] == (0, ["x", "x/a"])
    assert names_of("--exclude", "data", tmp_path / "lib" / "data")[1] == ["lib", "lib/c", "x", "x/a"]


def test_a_number_sign_is_a_name_on_the_command_line_and_a_comment_in_a_file(tmp_path):
    write(tmp_path / "source", {"#recycle": {"a": b""}, "b": b""})
    assert names_of("--exclude", "#recycle", tmp_path / "source")[1] == ["b"]
    (tmp_path / "lines").write_bytes(b"\xef\xbb\xbf# a comment\r\n#recycle\r\nb\r\n")
    assert names_of("--exclude-file", tmp_path / "lines", tmp_path / "source")[1] == ["#recycle", "#recycle/a"]


@pytest.mark.parametrize("paths", [["source"], ["source", "other"]])
def test_an_empty_point_of_what_is_not_empty_is_an_issue(tmp_path, paths):
    write(tmp_path / "source", {"a": {"b": b""}})
    (tmp_path / "other").mkdir()
    code, _, facts = names_of("--exclude", "*", *(tmp_path / path for path in paths))
    assert code == 1
    assert "empty" in next(fact["reason"] for fact in facts if fact["type"] == "issue")
    assert names_of("--exclude", "*", tmp_path / "other")[0] == 0
