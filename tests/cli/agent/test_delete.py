"""`cryo delete`, on a store in a directory and on a server."""

from __future__ import annotations

import json
import os

import pytest

from cryostore.cli.exit_codes import FAILED, OK
from cryostore.cli.verbs import run
from support.archives.agent import seen, write
from support.processes.serving import server  # noqa: F401 - a fixture


def test_without_a_terminal_and_without_yes_the_store_is_not_asked(capsys):
    """No server listens at that address: the missing confirmation is the first error."""
    assert run(["delete", "latest", "--resource", "r", "--endpoint-url", "http://127.0.0.1:9"]) == FAILED
    assert "--yes" in capsys.readouterr().err


@pytest.fixture(params=["in a directory", "on a server"])
def cryo(request, tmp_path, monkeypatch, capsys):
    """Carries out a command line on a store; returns its exit code, stdout and stderr."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    if request.param == "in a directory":
        monkeypatch.setenv("CRYO_DATA_DIR", str(tmp_path / "data"))
    else:
        for name, value in request.getfixturevalue("server").environment.items():
            monkeypatch.setenv(name, value)

    def call(*arguments):
        code = run([os.fspath(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_recovery_points_are_deleted_and_the_others_stay(cryo, tmp_path):
    source, ids = tmp_path / "source", []
    for number in range(3):
        write(source, {"file": b"%d" % number})
        _, out, _ = cryo("backup", source, "--json")
        ids.append(json.loads(out)["RecoveryPointArn"].rpartition(":")[2])
    code, out, _ = cryo("delete", ids[0], "latest", "--resource", f"{os.uname().nodename}:{source}", "--dry-run")
    assert (code, [line.split()[3] for line in out.splitlines()]) == (OK, [ids[0], ids[2]])
    code, out, err = cryo("delete", ids[0])
    assert (code, out) == (FAILED, "")
    assert "no terminal" in err
    assert (
        cryo("delete", ids[0], "no-such-point", "--yes")[0] == FAILED
    )  # nothing is deleted if one of them does not exist
    assert len([line for line in cryo("points")[1].splitlines() if line.split()[0] in ids]) == 3
    code, out, _ = cryo("delete", ids[0], ids[2].lower(), ids[0], "--yes", "--json")
    assert code == OK
    told = [json.loads(line) for line in out.splitlines()]
    assert [(each["deleted"], each["RecoveryPointArn"].rpartition(":")[2]) for each in told] == [
        (True, ids[0]),
        (True, ids[2]),
    ]
    assert [line.split()[0] for line in cryo("points")[1].splitlines() if line.split()[0] in ids] == [ids[1]]
    assert cryo("restore", ids[1], tmp_path / "target")[0] == OK
    write(source, {"file": b"1"})
    assert seen(tmp_path / "target")[b"file"]["content"] == seen(source)[b"file"]["content"]
