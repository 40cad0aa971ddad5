"""`cryo diff`: differences between two recovery points."""

from __future__ import annotations

import json
import os


def test_differences_as_text_and_as_json(cryo_process, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "old").touch()
    cryo_process("backup", tree)
    (tree / "old").unlink()
    (tree / os.fsdecode(b"\xff\n\x1b[2J")).write_bytes(b"x")
    cryo_process("backup", tree)
    new, old = (json.loads(line)["RecoveryPointArn"] for line in cryo_process.points())
    out, _ = cryo_process("diff", old, new)
    assert out.decode().splitlines() == [
        "- old",
        "+ \\xff\\x0a\\x1b[2J",
        "1 added, 1 removed, 0 changed, 0 metadata",
    ]
    lines = [json.loads(line) for line in cryo_process("diff", old, new, "--json")[0].splitlines()]
    assert [line["type"] for line in lines] == ["difference", "difference", "summary"]
    assert os.fsencode(lines[1]["path"]) == b"\xff\n\x1b[2J"
    assert lines[1]["path_base64"] == "/wobWzJK"
    assert lines[2] == {"type": "summary", "added": 1, "removed": 1, "changed": 0, "metadata": 0}
