"""Questions on a terminal, interrupted by a signal."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import termios
from contextlib import contextmanager

import pytest

from cryostore.cli.exit_codes import INTERRUPTED
from support.processes.serving import CRYO

SECONDS_MAX = 30


def own_terminal():
    """Make the standard input of a new session its terminal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def asked(tmp_path, *arguments):
    """A process that has asked for a passphrase on a terminal: it, and the terminal's other end."""
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
    """A key file under a passphrase."""
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
