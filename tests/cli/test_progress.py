"""What is shown while a run goes on."""

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


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 1024, "1.5 MiB"), (1 << 42, "4.0 TiB")],
)
def test_sizes_are_for_people(count, text):
    assert progress.size(count) == text


def test_a_line_tells_bytes_files_rate_time_and_place():
    report = Report(files=12, file_bytes=30 * MIB, current=b"a/\x1b[2J", total_bytes=90 * MIB)
    assert progress.line(report, 10.0) == "30.0 MiB, 12 files, 3.0 MiB/s, 0:20 left  a/\\x1b[2J"
    report.total_bytes = 29 * MIB  # an estimate that was wrong
    assert "left" not in progress.line(report, 10.0)
    report.issue(b"x", "no")
    report.total_bytes = None
    assert progress.line(report, 0.0) == "30.0 MiB, 12 files, 0 B/s, 1 issues  a/\\x1b[2J"


def test_a_large_file_counts_while_its_folder_is_not_done():
    report = Report(file_bytes=1 * MIB, read_bytes=30 * MIB)
    assert progress.line(report, 10.0).startswith("30.0 MiB, 0 files, 3.0 MiB/s")


def test_what_a_restore_has_yet_to_write_is_ahead_of_it():
    report = Report(files=12, file_bytes=90 * MIB, done_bytes=30 * MIB, total_bytes=90 * MIB)
    assert progress.line(report, 10.0, progress.gone_through) == "30.0 MiB, 12 files, 3.0 MiB/s, 0:20 left  "


@pytest.mark.parametrize(
    ("text", "columns", "shown"), [("abc", 3, "abc"), ("abcd", 3, "abc"), ("\u6587\u6587", 3, "\u6587"), ("", 0, "")]
)
def test_a_line_fits_its_terminal(text, columns, shown):
    assert progress.fitted(text, columns) == shown


def test_a_narrow_terminal_gets_lines_that_do_not_wrap():
    """On a real terminal, in a folder whose name is longer than the line."""
    columns = 30
    program = (
        "from cryostore.agent.report import Report; from cryostore.cli import progress; import sys\n"
        "progress.QUIET_SECONDS = progress.SECONDS_BETWEEN_LINES = 0.01\n"
        "report = Report(files=1, file_bytes=1 << 30, current=b'long' * 20, total_bytes=1 << 40)\n"
        "with progress.shown(report, quiet=False):\n"
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


def test_a_pipe_gets_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with progress.shown(Report(), quiet=False):
        pass
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_line_that_is_gone_at_the_end(capsys, monkeypatch):
    said = threading.Event()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress, "line", lambda *_: said.set() or "so far")
    with progress.shown(Report(), quiet=False):
        said.wait()
    err = capsys.readouterr().err
    assert "so far" in err
    assert err.endswith("\r\x1b[K")


def test_issues_beyond_those_that_are_kept_are_counted(capsys):
    report = Report()
    for number in range(1002):
        report.issue(b"%d" % number, "no")
    progress.say_issues(report, as_json=False)
    assert capsys.readouterr().err.splitlines()[-1] == "and 2 more"
