"""The progress line."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading

import pytest

from cryostore.agent.report import Report
from cryostore.cli import progress
from cryostore.core.limits import MIB
from cryostore.maintenance.claims import Progress


def test_a_line_has_bytes_files_rate_time_and_path():
    report = Report(files=12, file_bytes=30 * MIB, current=b"a/\x1b[2J", total_bytes=90 * MIB)
    assert progress.report_words(report, 10.0) == "30.0 MiB, 12 files, 3.0 MiB/s, 0:20 left  a/\\x1b[2J"
    report.total_bytes = 29 * MIB  # a wrong estimate
    assert "left" not in progress.report_words(report, 10.0)
    report.issue(b"x", "no")
    report.total_bytes = None
    assert progress.report_words(report, 0.0) == "30.0 MiB, 12 files, 0 B/s, 1 issues  a/\\x1b[2J"


def test_a_large_file_counts_while_its_folder_is_not_done():
    report = Report(file_bytes=1 * MIB, read_bytes=30 * MIB)
    assert progress.report_words(report, 10.0).startswith("30.0 MiB, 0 files, 3.0 MiB/s")


def test_a_restore_counts_written_bytes():
    report = Report(files=12, file_bytes=90 * MIB, done_bytes=30 * MIB, total_bytes=90 * MIB)
    assert progress.report_words(report, 10.0, progress.bytes_done) == "30.0 MiB, 12 files, 3.0 MiB/s, 0:20 left  "


@pytest.mark.parametrize(
    ("text", "columns", "shown"), [("abc", 3, "abc"), ("abcd", 3, "abc"), ("\u6587\u6587", 3, "\u6587"), ("", 0, "")]
)
def test_a_line_fits_its_terminal(text, columns, shown):
    assert progress.fitted(text, columns) == shown


def test_a_narrow_terminal_gets_lines_that_do_not_wrap():
    """On a real terminal, with a path that is longer than the line."""
    columns = 30
    program = (
        "from cryostore.agent.report import Report; from cryostore.cli import progress; import sys\n"
        "report = Report(files=1, file_bytes=1 << 30, current=b'long' * 20, total_bytes=1 << 40)\n"
        "with progress.shown(report, quiet=False, quiet_seconds=0.01):\n"
        "    sys.stdin.readline()\n"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    arguments = [sys.executable, "-c", program]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=theirs) as process:
        seen = b""
        while seen.count(b"\r\x1b[K") < 3:
            seen += os.read(ours, 4096)
        process.communicate(b"\n")
    os.close(theirs)
    os.close(ours)
    lines = seen.split(b"\r\x1b[K")[1:-1]
    assert lines
    assert all(line.startswith(b"1.0 GiB, 1 files") and len(line) < columns for line in lines)


def test_a_pipe_gets_nothing(capsys):
    with progress.shown(Report(), quiet=False, quiet_seconds=0.0):
        pass
    assert capsys.readouterr().err == ""


def test_the_line_on_a_terminal_is_erased_at_the_end(capsys, monkeypatch):
    said = threading.Event()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "report_words", lambda *_: said.set() or "so far")
    with progress.shown(Report(), quiet=False, quiet_seconds=0.0):
        said.wait()
    err = capsys.readouterr().err
    assert "so far" in err
    assert err.endswith("\r\x1b[K")


@pytest.mark.parametrize("terminal", [True, False])
def test_maintenance_draws_a_line_after_a_second(capsys, monkeypatch, terminal):
    """On a terminal only, and the line is erased at the end."""
    moments = iter(range(100))
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    progress.follow(
        (Progress("mark", number, 9) for number in range(9)), lambda step: step.words, now=lambda: next(moments) * 0.4
    )
    said = capsys.readouterr().err
    assert ("mark 8 of 9" in said) == terminal
    assert "mark 0 of 9" not in said
    assert said.endswith("\r\x1b[K") == terminal


def test_a_failing_step_leaves_no_line_behind(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)

    def steps():
        yield "first"
        raise OSError

    moments = iter((0, 2))
    with pytest.raises(OSError):
        progress.follow(steps(), str, now=lambda: next(moments))
    assert capsys.readouterr().err.endswith("first\r\x1b[K")
