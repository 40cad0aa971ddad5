"""What is shown while a run goes on."""

from __future__ import annotations

import sys
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
