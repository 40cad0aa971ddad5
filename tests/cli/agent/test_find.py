"""`cryo find`: names in every recovery point, among them encrypted ones."""

from __future__ import annotations

import json
import os

import pytest


def test_matches_as_text_and_as_json(cryo_process, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "old").touch()
    cryo_process("backup", tree)
    (tree / "old").unlink()
    (tree / os.fsdecode(b"\xff\n\x1b[2J")).write_bytes(b"x")
    cryo_process("backup", tree)
    new, old = (json.loads(line)["RecoveryPointArn"] for line in cryo_process.points())
    assert b"  \\xff\\x0a\\x1b[2J\n" in cryo_process("find", "*2J")[0]
    assert json.loads(cryo_process("find", "old", "--json")[0])["RecoveryPointArn"] == old
    assert cryo_process("find", "old", "--point", new) == (b"", "")
    recent = cryo_process("find", "*", "--newer", "1d", "--larger", "0", "--type", "f", "--json")[0]
    assert len(recent.splitlines()) == 1
    assert "is not a time" in cryo_process("find", "*", "--newer", "soon", code=2)[1]


@pytest.fixture
def both(cryo, folder):
    """The options of a store with an encrypted and a plain backup of the same folder."""
    cryo("init-key", folder / "key")
    cryo("backup", folder / "source", "--data-dir", folder / "data", "--resource", "plain")
    cryo("backup", folder / "source", "--data-dir", folder / "data", "--resource", "sealed", "--key", folder / "key")
    return ["--data-dir", folder / "data"]


def arns(cryo, both):
    points = map(json.loads, cryo("points", *both, "--json")[1].splitlines())
    return {point["ResourceName"]: point["RecoveryPointArn"] for point in points}


def test_points_that_cannot_be_searched_are_reported(cryo, folder, both):
    arn = arns(cryo, both)
    code, out, error = cryo("find", "telling*", *both)
    assert code == 1
    assert out.splitlines()[1:] == ["  telling-name"]
    assert error.splitlines()[0] == f"{arn['sealed']}: not searched: this backup is encrypted"
    assert "hint: give its key" in error
    code, out, error = cryo("find", "telling*", *both, "--json")
    assert (code, [json.loads(line)["RecoveryPointArn"] for line in out.splitlines()]) == (1, [arn["plain"]])
    assert [json.loads(line)["RecoveryPointArn"] for line in error.splitlines()] == [arn["sealed"]]
    code, out, error = cryo("find", "telling*", *both, "--key", folder / "key")
    assert (code, len(out.splitlines())) == (1, 2)
    assert arn["plain"] in error


def test_no_searchable_point_is_a_failure(cryo, both):
    code, out, error = cryo("find", "telling*", *both, "--resource", "sealed")
    assert (code, out) == (2, "")
    assert "hint: give its key" in error
    assert cryo("find", "telling*", *both, "--resource", "plain")[0] == 0
