"""Command whose output is backed up: its output, its failures, and its end."""

from __future__ import annotations

import os
import sys

import pytest

from cryostore.agent.errors import SourceError
from cryostore.agent.streams.command import in_shell, running


def test_the_output_of_a_command_is_read():
    with running([sys.executable, "-c", "print('x' * 5)"]) as fd, os.fdopen(os.dup(fd), "rb") as output:
        assert output.read() == b"xxxxx\n"


def test_any_part_of_a_pipe_may_fail():
    if in_shell("")[0] == "/bin/sh":
        pytest.skip("this needs the pipefail of bash")
    with pytest.raises(SourceError, match="exited with code 1"), running(in_shell("false | cat")) as fd:
        assert os.read(fd, 1) == b""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit(3)", "exited with code 3: no recovery point is made"),
        ("raise SystemExit(143)", r"exited with code 143 \(SIGTERM\)"),
        ("raise SystemExit(255)", "exited with code 255: "),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ],
)
def test_a_failure_is_raised_when_the_context_ends(code, message):
    with pytest.raises(SourceError, match=message), running([sys.executable, "-c", code]) as fd:
        assert os.read(fd, 1) == b""


def test_a_command_that_is_missing_cannot_be_run():
    with pytest.raises(SourceError, match="cannot be run: No such file"), running(["/nonexistent/command"]):
        pass


def test_an_error_in_the_context_stops_the_command():
    class ReaderFailedError(Exception):
        pass

    with pytest.raises(ReaderFailedError), running(["sleep", "1000"]):
        raise ReaderFailedError
