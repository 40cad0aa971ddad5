"""The option `--key` of agent verbs, and questions for a passphrase."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import termios
from contextlib import contextmanager
from pathlib import Path

import pytest

from cryostore.cli.exit_codes import INTERRUPTED
from support.processes.serving import CRYO

SECONDS_MAX = 30


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
    """An empty standard input."""
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield


@pytest.mark.usefixtures("no_stdin")
def test_streams_and_disks_are_encrypted(cryo, folder):
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


def test_a_passphrase_alone_opens_backups_that_store_a_key_protected_by_it(cryo, folder, monkeypatch):
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
    assert "cryo key list" not in error, "the hint must not be that for master keys"


def own_terminal():
    """Make the standard input of a new session its terminal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def asked(tmp_path, *arguments):
    """Start a process that asks for a passphrase on a terminal; yields it and the other end of the terminal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CRYO"))}
    end, terminal = os.openpty()
    with subprocess.Popen(
        [*CRYO, *map(str, arguments)],
        env=kept | {"XDG_STATE_HOME": str(tmp_path / "state")},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=own_terminal,  # noqa: PLW1509 - it takes no lock
    ) as process:
        os.close(terminal)
        said = b""
        while b"assphrase" not in said:
            said += os.read(end, 1024)
        yield process, end
        process.kill()


@pytest.fixture
def locked(tmp_path):
    """A key file with a passphrase."""
    (tmp_path / "secret").write_text("secret")
    environment = os.environ | {"CRYO_KEY_PASSPHRASE_FILE": str(tmp_path / "secret")}
    command = [*CRYO, "init-key", str(tmp_path / "key"), "--passphrase"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return tmp_path / "key"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_restores_the_terminal(tmp_path, locked, number):
    with asked(tmp_path, "agent-key", "public", locked, tmp_path / "public") as (process, end):
        process.send_signal(number)
        assert process.wait(SECONDS_MAX) == INTERRUPTED
        assert b"interrupted" in os.read(end, 1024)
        assert termios.tcgetattr(end)[3] & termios.ECHO
        os.close(end)


def test_a_lost_terminal_counts_as_an_interrupt(tmp_path, locked):
    with asked(tmp_path, "ls", "latest", "--data-dir", tmp_path, "--key", locked) as (process, end):
        os.close(end)
        assert process.wait(SECONDS_MAX) == INTERRUPTED
