"""`cryo ls`: names of recovery points and of entries."""

from __future__ import annotations

from cryostore.cli.exit_codes import FAILED, OK
from support.processes.command_line import json_lines


def test_ways_to_name_a_recovery_point(cryo, source, tmp_path):
    arns = [json_lines(cryo("backup", source, "--json")[1])[0]["RecoveryPointArn"] for _ in range(2)]
    ids = [arn.rpartition(":")[2] for arn in arns]
    for name in (
        arns[0],
        ids[0],
        ids[0].lower(),
        ids[0][:12],
        f"{arns[0]}:folder",
        f"{ids[0]}:folder",
        "latest:folder",
    ):
        assert cryo("ls", name)[0] == OK
    assert cryo("ls", "latest:folder")[1] == "folder/other\n"
    assert cryo("ls", f"latest:{source}/folder")[1] == "folder/other\n"
    for name in ("", "nothing", "arn:aws:backup:local-1:000000000000:recovery-point:NONE"):
        code, out, err = cryo("ls", name)
        assert (code, out) == (FAILED, "")
        assert "there is no recovery point" in err or "beginning" in err


def test_names_of_entries_cannot_move_the_cursor(cryo, source):
    cryo("backup", source)
    out = cryo("ls", "latest")[1]
    assert r"\x1b[2J\x0a" in out
    assert "\x1b" not in out


def test_the_long_format(cryo, source):
    (source / "link").symlink_to("nowhere")
    cryo("backup", source)
    out = cryo("ls", "-l", "latest")[1]
    assert "-> nowhere" in out
    assert out.splitlines()[1].startswith("-rw")
