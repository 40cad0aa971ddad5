"""How a run of the agent goes on, on a terminal; and what came of it, for people and for programs."""

from __future__ import annotations

import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cryostore.cli import output
from cryostore.core.companion import companion
from cryostore.core.limits import KIB, MIB

if TYPE_CHECKING:
    from cryostore.agent.report import Report

QUIET_SECONDS = 1.0
SECONDS_BETWEEN_LINES = 0.25
PATH_CHARACTERS = 40
COLUMNS = 80
"""Of a terminal that does not say how wide it is."""
UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (MIB, "MiB"), (KIB, "KiB"))


Done = Callable[["Report"], int]


def looked_at(report: Report) -> int:
    """How many bytes a run has behind it that reads: of files that were counted, or in order."""
    return max(report.file_bytes, report.read_bytes)


def gone_through(report: Report) -> int:
    """How many bytes of files a run has behind it, whether it read or wrote them or found them as they are to be."""
    return report.done_bytes


@contextmanager
def shown(report: Report, *, quiet: bool, done: Done = looked_at) -> Iterator[None]:
    """While the context lasts, say on a terminal how far the run is, once it takes longer than a second."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    with companion("progress", lambda ended: _show(report, ended, done)):
        yield


@contextmanager
def interrupted(meaning: str) -> Iterator[None]:
    """Say of a Ctrl-C while the context lasts what it means, unless that was said where it came."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not getattr(interrupt, "__notes__", None):
            interrupt.add_note(meaning)
        raise


def _show(report: Report, ended: threading.Event, done: Done) -> None:
    begun = time.monotonic()
    wait = QUIET_SECONDS
    said = False
    while not ended.wait(wait):
        text = fitted(line(report, time.monotonic() - begun, done), _columns() - 1)
        output.progress(text)
        wait, said = SECONDS_BETWEEN_LINES, True
    if said:
        output.progress("")


def line(report: Report, seconds: float, done: Done = looked_at) -> str:
    """One line of progress."""
    from cryostore.agent.errors import shown as shown_path

    count = done(report)
    rate = count / seconds if seconds else 0.0
    left = ""
    if report.total_bytes and rate and report.total_bytes >= count:
        left = f", {_span((report.total_bytes - count) / rate)} left"
    issues = f", {report.issue_count} issues" if report.issue_count else ""
    path = shown_path(report.current)[-PATH_CHARACTERS:]
    return f"{size(count)}, {report.files} files, {size(rate)}/s{left}{issues}  {path}"


def fitted(text: str, columns: int) -> str:
    """As much of a text as so many columns show: a line that wraps could not be taken back."""
    used = 0
    for index, character in enumerate(text):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > columns:
            return text[:index]
    return text


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or COLUMNS
    except (OSError, ValueError):
        return COLUMNS


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit, name in UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def moment(seconds: float | None) -> str:
    """A time of the API in this machine's zone; in UTC at the ends of the calendar."""
    from datetime import UTC, datetime

    found = datetime.fromtimestamp(seconds or 0.0, UTC)
    with suppress(OverflowError):
        found = found.astimezone()
    return f"{found:%Y-%m-%d %H:%M:%S}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say_issues(report: Report, *, as_json: bool) -> None:
    """Each issue in a line of its own: on stderr for people, among the results for programs."""
    from cryostore.agent.errors import shown as shown_path
    from cryostore.cli.entry_facts import path_facts

    for issue in report.issues:
        if as_json:
            output.say({"type": "issue"} | path_facts(issue.path) | {"reason": issue.reason})
        else:
            output.tell(f"{shown_path(issue.path) or '.'}: {issue.reason}")
    if not as_json and (more := report.issue_count - len(report.issues)):
        output.tell(f"and {more} more")
