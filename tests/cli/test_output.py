"""Output whose reader does not read."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import termios

import pytest

from cryostore.cli.exit_codes import INTERRUPTED
from support.archives.agent import write
from support.processes.serving import CRYO
from support.waiting import until

SECONDS_MAX = 30
PIPE_BYTES = 4096


def unread(fd):
    """How many bytes are in a pipe."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), "little")


@pytest.fixture
def listing(tmp_path):
    """A listing that waits for its reader: the process, and the pipe's end to read from."""
    write(tmp_path / "source", {"n" * 200 + str(number): b"" for number in range(200)})
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path / "state"), "CRYO_DATA_DIR": str(tmp_path / "data")}
    subprocess.run([*CRYO, "backup", tmp_path / "source"], env=environment, check=True, capture_output=True)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    command = [*CRYO, "ls", "latest"]
    with (
        os.fdopen(reader, "rb") as read,
        subprocess.Popen(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True) as process,
    ):
        os.close(writer)
        until(lambda: unread(reader) == PIPE_BYTES)
        yield process, read
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_waits_for_a_reader_can_be_interrupted(listing, number):
    process, _ = listing
    process.send_signal(number)
    assert process.wait(SECONDS_MAX) == INTERRUPTED
    assert process.stderr.read().strip() == "interrupted"


def test_a_slow_reader_gets_everything(listing):
    process, read = listing
    assert len(read.read().splitlines()) == 200
    assert process.wait(SECONDS_MAX) == 0
