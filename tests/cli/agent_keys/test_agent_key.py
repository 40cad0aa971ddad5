"""`cryo init-key`, `cryo agent-key`, and `--key` of the agent's verbs."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from cryostore.cli.agent_store import AgentStore, recommend_key
from cryostore.cli.verbs import run

COVERS = ("cli/agent_key_option.py", "cli/agent_keys/init_key.py")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a store to be, a tree, and no key anywhere."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("CRYO_KEY_FILE", "CRYO_KEY_PASSPHRASE_FILE", "CRYO_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "telling-name").write_bytes(b"content")
    return tmp_path


@pytest.fixture
def cryo(folder, capsys):
    """Runs a verb; answers its exit code, its stdout and its stderr."""

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_key_file_is_its_owners_alone_and_never_replaced(cryo, folder):
    code, _, warning = cryo("init-key", folder / "key")
    assert code == 0
    assert "are unrecoverable" in warning
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    before = (folder / "key").read_bytes()
    code, _, error = cryo("init-key", folder / "key")
    assert (code, (folder / "key").read_bytes()) == (2, before)
    assert "a key is never replaced" in error


def test_secrets_are_printed_only_on_paper(cryo, folder):
    cryo("init-key", folder / "key")
    secret = json.loads((folder / "key").read_text())["secret"]
    cryo("backup", folder / "source", "--data-dir", folder / "data", "--key", folder / "key")
    for arguments in (["list"], ["rotate"]):
        code, out, error = cryo("agent-key", *arguments, "--data-dir", folder / "data", "--key", folder / "key")
        assert code == 0
        assert secret not in out + error
    code, paper, _ = cryo("agent-key", "paper", folder / "key")
    (folder / "typed").write_text(paper)
    cryo("init-key", folder / "again", "--from-paper", folder / "typed")
    assert json.loads((folder / "again").read_text())["secret"] == secret


def test_a_passphrase_comes_from_a_file_or_a_terminal(cryo, folder, monkeypatch):
    code, _, error = cryo("init-key", folder / "key", "--passphrase")
    assert (code, (folder / "key").exists()) == (2, False)
    assert "CRYO_KEY_PASSPHRASE_FILE" in error
    (folder / "passphrase").write_text("correct horse\n")
    monkeypatch.setenv("CRYO_KEY_PASSPHRASE_FILE", str(folder / "passphrase"))
    assert cryo("init-key", folder / "key", "--passphrase")[0] == 0
    assert "secret" not in json.loads((folder / "key").read_text())
    assert cryo("agent-key", "paper", folder / "key")[0] == 0
    (folder / "passphrase").write_text("wrong horse\n")
    code, out, error = cryo("agent-key", "paper", folder / "key")
    assert (code, out) == (2, "")
    assert "passphrase" in error


def test_a_key_that_others_can_read_is_refused(cryo, folder):
    cryo("init-key", folder / "key", "--public-to", folder / "public")
    (folder / "key").chmod(0o640)
    code, _, error = cryo("points", "--data-dir", folder / "data", "--key", folder / "key")
    assert code == 2
    assert "chmod 600" in error


def test_backup_list_restore_with_a_key_and_an_opaque_name(cryo, folder, monkeypatch):
    cryo("init-key", folder / "key")
    monkeypatch.setenv("CRYO_KEY_FILE", str(folder / "key"))
    place = ("--data-dir", folder / "data")
    for _ in range(2):
        code, out, _ = cryo("backup", folder / "source", "--json", *place)
        assert code == 0
        assert json.loads(out.splitlines()[-1])["files"] == 1
    _, points, _ = cryo("points", *place)
    assert "sealed-" in points
    assert str(folder) not in points
    assert "telling-name" in cryo("ls", "latest", *place)[1]
    assert cryo("verify", "latest", "--data", *place)[0] == 0
    assert cryo("restore", "latest", folder / "target", *place)[0] == 0
    assert (folder / "target" / "telling-name").read_bytes() == b"content"
    monkeypatch.delenv("CRYO_KEY_FILE")
    code, _, error = cryo("ls", "latest", *place)
    assert code == 2
    assert "--key FILE" in error


@pytest.fixture
def no_stdin(monkeypatch):
    """A standard input with nothing in it."""
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield


@pytest.mark.usefixtures("no_stdin")
def test_streams_and_disks_are_sealed(cryo, folder):
    cryo("init-key", folder / "key")
    place = ("--data-dir", folder / "data", "--key", folder / "key")
    assert cryo("backup", "--command", "echo very secret", "--name", "dump.txt", *place)[0] == 0
    assert cryo("restore", "latest", folder / "out.txt", *place)[0] == 0
    assert (folder / "out.txt").read_bytes() == b"very secret\n"
    assert cryo("ls", "latest", "--data-dir", folder / "data")[0] == 2
    (folder / "image").write_bytes(bytes(4096) + b"secret" * 1000)
    assert cryo("backup", "--device", folder / "image", *place)[0] == 0
    assert cryo("restore", "latest", folder / "image out", *place)[0] == 0
    assert (folder / "image out").read_bytes() == (folder / "image").read_bytes()
    assert cryo("ls", "latest", "--data-dir", folder / "data")[0] == 2


def test_keys_added_accepted_and_removed(cryo, folder):
    for name in ("key", "other"):
        cryo("init-key", folder / name)
    cryo("agent-key", "public", folder / "other", folder / "other.pub")
    place = ("--data-dir", folder / "data")
    mine, others = ("--key", folder / "key"), ("--key", folder / "other")
    cryo("backup", folder / "source", *place, *mine)
    assert cryo("restore", "latest", folder / "no", *place, *others)[0] == 2
    assert cryo("agent-key", "add", folder / "other.pub", "--name", "the other", *place, *mine)[0] == 0
    assert cryo("restore", "latest", folder / "yes", *place, *others)[0] == 0
    _, listed, note = cryo("agent-key", "list", *place, *others)
    assert "the other" in listed
    assert "nothing proves" in note
    assert "nothing proves" not in cryo("verify", "latest", *place, *mine)[2]
    resource = json.loads(cryo("agent-key", "list", "--json", *place, *others)[1])["resource"]
    backup = ("backup", folder / "source", "--resource", resource, *place, *others)
    assert cryo(*backup)[0] == 2
    assert cryo("agent-key", "accept", *place, *others)[0] == 0
    assert cryo(*backup)[0] == 0
    fingerprint = json.loads(cryo("agent-key", "list", "--json", *place, *mine)[1])["keys"][1]["key"]
    code, said, _ = cryo("agent-key", "remove", fingerprint, *place, *mine)
    assert code == 0
    assert "existing backups stay readable for that key" in said
    assert cryo("restore", "latest", folder / "gone", *place, *others)[0] == 2
    assert cryo("agent-key", "remove", "zz", *place, *mine)[0] == 2


def test_a_public_key_writes_and_does_not_read(cryo, folder):
    cryo("init-key", folder / "key", "--public-to", folder / "public")
    place = ("--data-dir", folder / "data")
    public = ("--key", folder / "public")
    code, _, error = cryo("backup", folder / "source", *place, *public)
    assert code == 2
    assert "--resource" in error
    for _ in range(2):
        assert cryo("backup", folder / "source", "--resource", "machine-1", *place, *public)[0] == 0
    assert cryo("restore", "latest", folder / "no", *place, *public)[0] == 2
    assert cryo("restore", "latest", folder / "target", *place, "--key", folder / "key")[0] == 0
    assert (folder / "target" / "telling-name").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://backup.example.org", True),
        ("http://192.0.2.1:8600", True),
        ("http://127.0.0.1:8600", False),
        ("http://[::1]:8600", False),
        ("http://localhost:8600", False),
    ],
)
def test_a_key_is_recommended_for_a_server_elsewhere(folder, capsys, url, said):
    recommend_key(AgentStore(None, url, None))
    assert capsys.readouterr().err.count("\n") == said
    recommend_key(AgentStore(None, url, None, folder / "key"))
    recommend_key(AgentStore(folder, None, None))
    assert capsys.readouterr().err == ""


def test_a_passphrase_alone_opens_backups_that_have_a_key_under_it(cryo, folder, monkeypatch):
    cryo("init-key", folder / "key")
    place = ("--data-dir", folder / "data")
    (folder / "passphrase").write_text("correct horse battery staple\n")
    monkeypatch.setenv("CRYO_KEY_PASSPHRASE_FILE", str(folder / "passphrase"))
    code, _, error = cryo("backup", folder / "source", "--resource", "r", *place, "--key", "@passphrase")
    assert (code, "the first backup needs a key file" in error) == (2, True)
    cryo("backup", folder / "source", "--resource", "r", *place, "--key", folder / "key")
    first = cryo("points", *place)[1].split()[0]
    assert cryo("ls", "latest", *place, "--key", "@passphrase")[0] == 2
    assert cryo("agent-key", "add", "--passphrase", *place, "--key", folder / "key")[0] == 0
    assert cryo("backup", folder / "source", "--resource", "r", *place, "--key", "@passphrase")[0] == 0
    for point in (first, "latest"):
        assert "telling-name" in cryo("ls", point, *place, "--key", "@passphrase")[1]
    (folder / "passphrase").write_text("another\n")
    code, _, error = cryo("ls", "latest", *place, "--key", "@passphrase")
    assert (code, "opens no key" in error) == (2, True)
    assert "cryo key list" not in error, "that is about the master keys of the store"


@pytest.fixture
def both(cryo, folder):
    """A store with a backup that is encrypted and one that is not, each with the same name in it."""
    cryo("init-key", folder / "key")
    cryo("backup", folder / "source", "--data-dir", folder / "data", "--resource", "plain")
    cryo("backup", folder / "source", "--data-dir", folder / "data", "--resource", "sealed", "--key", folder / "key")
    return ["--data-dir", folder / "data"]


def arns(cryo, both):
    points = map(json.loads, cryo("points", *both, "--json")[1].splitlines())
    return {point["ResourceName"]: point["RecoveryPointArn"] for point in points}


def test_find_reports_the_points_that_it_cannot_search(cryo, folder, both):
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


def test_find_fails_if_it_can_search_nothing(cryo, both):
    code, out, error = cryo("find", "telling*", *both, "--resource", "sealed")
    assert (code, out) == (2, "")
    assert "hint: give its key" in error
    assert cryo("find", "telling*", *both, "--resource", "plain")[0] == 0
