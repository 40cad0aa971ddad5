"""Several agent verbs in a row: backup, restore, list and verify, also after failures and kills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import pytest

from cryostore.cli.exit_codes import FAILED, OK, WITH_ISSUES
from cryostore.core.limits import MIB
from support.archives.agent import seen, write
from support.processes.command_line import json_lines
from support.processes.serving import CRYO, serving


def test_backup_and_restore(cryo, source, tmp_path):
    code, out, err = cryo("backup", source)
    assert code == OK
    assert "3 new, 0 changed, 0 unchanged" in out
    assert "made a new store; nothing in it can be read without its keys: copy " in err
    assert "made" not in cryo("backup", source)[2]
    code, out, err = cryo("restore", "latest", tmp_path / "target")
    assert (code, err) == (OK, "")
    assert "3 restored, 0 left as they are, 0 deleted" in out
    assert seen(tmp_path / "target") == seen(source)


def test_results_as_json_lines(cryo, source, tmp_path):
    _, out, _ = cryo("backup", source, "--json")
    (made,) = json_lines(out)
    assert (made["type"], made["new"], made["issues"]) == ("summary", 3, 0)
    (listed,) = json_lines(cryo("points", "--json")[1])
    assert listed["RecoveryPointArn"] == made["RecoveryPointArn"]
    assert listed["CreationDate"] > 0
    (restored,) = json_lines(cryo("restore", "latest", tmp_path / "target", "--json")[1])
    assert (restored["restored"], restored["issues"]) == (3, 0)
    entries = json_lines(cryo("ls", "latest", "-R", "--json")[1])
    assert [entry["path"] for entry in entries] == ["\x1b[2J\n", "file", "folder", "folder/other"]
    (verified,) = json_lines(cryo("verify", "latest", "--data", "--json")[1])
    assert (verified["files"], verified["issues"]) == (3, 0)


def test_failures_exit_with_2(cryo, source, tmp_path):
    assert cryo("backup", tmp_path / "nowhere")[0] == FAILED
    assert cryo("restore", "latest", tmp_path / "target")[0] == FAILED
    assert "holds no store" in cryo("points")[2]
    cryo("backup", source)
    assert cryo("restore", "latest", source / "file")[0] == FAILED
    assert cryo("restore", "latest:nowhere", tmp_path / "target")[0] == FAILED
    assert cryo("backup", source, "--vault", "nowhere")[0] == FAILED
    assert cryo("backup", source, "--tag", "no-value")[0] == FAILED
    assert cryo("backup", source, "--exclude-larger-than", "much")[0] == FAILED
    assert cryo("backup", source, "--endpoint-url", "http://127.0.0.1:1")[0] == FAILED


def test_the_next_backup_sends_damaged_files_again(cryo, source, tmp_path):
    write(source, {"large": os.urandom(6 * MIB)})
    cryo("backup", source)
    pack = max((tmp_path / "data").rglob("*.pack"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    assert cryo("scrub")[0] == WITH_ISSUES
    code, out, err = cryo("restore", "latest", tmp_path / "target")
    assert (code, err.splitlines()[-1].partition(":")[0]) == (WITH_ISSUES, "large")
    assert {"file", "folder"} < {path.name for path in (tmp_path / "target").iterdir()}
    code, out, _ = cryo("backup", source)
    assert code == OK
    assert "1 objects of the last backup are damaged in the store: sent again" in out
    for point in json_lines(cryo("points", "--json")[1]):
        assert cryo("verify", point["RecoveryPointArn"], "--data")[0] == OK
    (summary,) = json_lines(cryo("backup", source, "--json")[1])
    assert summary["damaged_objects"] == 0


def test_backup_and_restore_over_a_server(source, tmp_path):
    with serving(tmp_path / "served") as server:
        environment = server.environment | {"XDG_STATE_HOME": str(tmp_path / "state")}
        for arguments in (
            ["backup", source],
            ["restore", "latest", tmp_path / "target"],
            ["verify", "latest", "--data"],
        ):
            done = subprocess.run([*CRYO, *arguments], env=environment, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (OK, "")
    assert seen(tmp_path / "target") == seen(source)


def killed_backups(tmp_path, kills, more):
    """Kill backups of a changing tree at random moments, then let one finish; return its summary."""
    rng = random.Random(5)
    write(tmp_path / "source", {f"{n:03}": rng.randbytes(MIB // 2 + n) for n in range(60)})
    data = tmp_path / "data"
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-m", "cryostore", "backup", str(tmp_path / "source"), "--data-dir", str(data), "--json"]
    command += more
    for number in range(kills):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            process.communicate(timeout=rng.uniform(0.2, 1.2))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        write(tmp_path / "source", {f"{number % 60:03}": rng.randbytes(MIB // 2), f"new {number}": rng.randbytes(9000)})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == OK, done.stderr
    return json_lines(done.stdout)[-1]


def check_after_kills(cryo, tmp_path, kills, writer=(), reader=()):
    summary = killed_backups(tmp_path, kills, [*map(str, writer)])
    assert summary["issues"] == 0
    assert cryo("restore", "latest", tmp_path / "target", *reader)[0] == OK
    assert seen(tmp_path / "target") == seen(tmp_path / "source")
    for point in json_lines(cryo("points", "--json")[1]):
        assert cryo("verify", point["RecoveryPointArn"], "--data", *reader)[0] == OK
    (found,) = json_lines(cryo("check", "--json")[1])
    if found["findings"]:  # the kill came between the first bytes of a pack and its first row
        assert [finding["name"] for finding in found["findings"]] == ["pack-unknown"], found
        assert cryo("repair")[0] == OK
        assert cryo("check")[0] == OK


def test_kills_leave_nothing_unfinished(cryo, tmp_path):
    check_after_kills(cryo, tmp_path, 3)


@pytest.mark.stress
@pytest.mark.parametrize("kind", ["plain", "sealed", "write-only"])
def test_many_kills_leave_nothing_unfinished(cryo, tmp_path, kind):
    key, public = tmp_path / "key", tmp_path / "public"
    cryo("init-key", key, "--public-to", public)
    options = {
        "plain": ([], []),
        "sealed": (["--key", key], ["--key", key]),
        "write-only": (["--key", public, "--resource", "tree"], ["--key", key]),
    }
    check_after_kills(cryo, tmp_path, 60, *options[kind])
