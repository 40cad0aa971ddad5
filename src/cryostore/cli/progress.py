"""Progress line on the terminal: how far a run is, redrawn in place and gone at the end.

A run that reports to an agent's `Report` is drawn by a thread; one that is a series of steps, between the steps.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from cryostore.cli import output
from cryostore.core.quantities import size_text
from cryostore.core.threads import background_thread

if TYPE_CHECKING:
    from cryostore.agent.report import Report
    from cryostore.maintenance.claims import Progress

QUIET_SECONDS = 1.0
"""A run that takes no longer shows no progress."""
SECONDS_BETWEEN_LINES = 0.25
PATH_CHARACTERS = 40
COLUMNS = 80
"""Of a terminal that does not tell its width."""

Step = TypeVar("Step")
DoneBytes = Callable[["Report"], int]


class ProgressLine:
    """The last line of the terminal. Not for use by several threads at once."""

    def __init__(
        self,
        *,
        quiet_seconds: float = QUIET_SECONDS,
        seconds_between: float = SECONDS_BETWEEN_LINES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._due = now() + quiet_seconds
        self._seconds_between = seconds_between
        self._is_drawn = False

    def update(self, words: Callable[[], str]) -> None:
        """Draw the words if it is time to."""
        now = self._now()
        if now >= self._due:
            output.progress(fitted(words(), _columns() - 1))
            self._due, self._is_drawn = now + self._seconds_between, True

    def clear(self) -> None:
        """Take the line off the terminal."""
        if self._is_drawn:
            output.progress("")


def follow(steps: Iterable[Step], words: Callable[[Step], str], *, now: Callable[[], float] = time.monotonic) -> None:
    """Take all steps; on a terminal, draw the words of a step now and then."""
    line = ProgressLine(now=now) if sys.stderr.isatty() else None
    try:
        for step in steps:
            if line is not None:
                line.update(partial(words, step))
    finally:
        if line is not None:
            line.clear()


def follow_progress(steps: Iterable[Progress]) -> None:
    """Take all steps of maintenance; on a terminal, draw how far the stage is."""
    follow(steps, lambda step: step.words)


def bytes_read(report: Report) -> int:
    """Return how many bytes a reading run is past: those of files that are counted, or those read in order."""
    return max(report.file_bytes, report.read_bytes)


def bytes_done(report: Report) -> int:
    """Return how many bytes of files a run is past, whether it read or wrote them or found them unchanged."""
    return report.done_bytes


@contextmanager
def shown(
    report: Report, *, quiet: bool, done: DoneBytes = bytes_read, quiet_seconds: float = QUIET_SECONDS
) -> Iterator[None]:
    """While the context lasts, draw how far the run of a report is, unless `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield
        return

    def draw(ended: threading.Event) -> None:
        begun = time.monotonic()
        line = ProgressLine(quiet_seconds=quiet_seconds)
        while not ended.wait(SECONDS_BETWEEN_LINES):
            line.update(lambda: report_words(report, time.monotonic() - begun, done))
        line.clear()

    with background_thread("progress", draw):
        yield


def report_words(report: Report, seconds: float, done: DoneBytes = bytes_read) -> str:
    """Return one line about a run that began `seconds` ago."""
    from cryostore.agent.errors import shown as shown_path

    count = done(report)
    rate = count / seconds if seconds else 0.0
    left = ""
    if report.total_bytes and rate and report.total_bytes >= count:
        left = f", {_clock((report.total_bytes - count) / rate)} left"
    issues = f", {report.issue_count} issues" if report.issue_count else ""
    path = shown_path(report.current)[-PATH_CHARACTERS:]
    return f"{size_text(count)}, {report.files} files, {size_text(rate)}/s{left}{issues}  {path}"


@contextmanager
def interrupted(meaning: str) -> Iterator[None]:
    """While the context lasts, add to a Ctrl-C what it means for the run, unless it has such a note already."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not getattr(interrupt, "__notes__", None):
            interrupt.add_note(meaning)
        raise


def fitted(text: str, columns: int) -> str:
    """Return the part of a text that fits so many columns: a line that wraps could not be erased."""
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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
