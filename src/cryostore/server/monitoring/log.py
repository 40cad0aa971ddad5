"""Log lines: one JSON object each, written to one file descriptor by a thread of its own.

A caller that logs never waits for the reader of the log: lines queue up, and when the queue is full, further lines are
counted and dropped. Characters that act on a terminal are escaped, so no value can forge a line. Lines hold no secrets,
because callers pass none: no headers, no query strings, no paths (they contain chunk tokens), no bodies.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import traceback
from collections import deque
from typing import Any

import msgspec

from cryostore.core.time import Clock, iso_text, seconds
from cryostore.options.configuration import LOG_LEVELS

LINES_WAITING_MAX = 20_000
BATCH_SECONDS = 0.02
TEXT_CHARACTERS_MAX = 16_384


class Log:
    """Writes lines of `level` and above. Thread safe."""

    def __init__(
        self,
        descriptor: int,
        *,
        clock: Clock,
        level: str = "info",
        lines_waiting_max: int = LINES_WAITING_MAX,
        batch_seconds: float = BATCH_SECONDS,
    ) -> None:
        self._lines_waiting_max = lines_waiting_max
        self._batch_seconds = batch_seconds
        self.level = LOG_LEVELS[level]
        self._descriptor = descriptor
        self._clock = clock
        self._encode = msgspec.json.Encoder().encode
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._torn = False
        """Whether the last line was written in part only."""
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, level: str, event: str, **fields: Any) -> None:
        """Log an event with its fields; a field that is None is left out."""
        if LOG_LEVELS[level] < self.level:
            return
        line: dict[str, Any] = {"time": iso_text(seconds(self._clock())), "level": level, "event": event}
        line |= {name: value for name, value in fields.items() if value is not None}
        if len(self._lines) >= self._lines_waiting_max:
            self._dropped += 1
            return
        self._lines.append(_escaped(self._encode(line)))
        if not self._wake.is_set():
            self._wake.set()

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        """Log an unexpected error with its traceback."""
        text = "".join(traceback.format_exception(error))
        self.write("error", event, error=type(error).__name__, traceback=text[-TEXT_CHARACTERS_MAX:], **fields)

    def close(self) -> None:
        """Write the lines in the queue. Later lines are not written."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(self._batch_seconds)  # gather a batch: a wake-up for each line costs more than the line
            self._wake.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._lines.append(self._encode({"level": "warning", "event": "log lines dropped", "count": dropped}))
        batch = bytearray(b"\n" if self._torn else b"")
        count = len(self._lines)
        for _ in range(count):
            batch += self._lines.popleft()
            batch += b"\n"
        view = memoryview(batch)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:  # the reader of the log is gone, or its disk is full; the server goes on without the log
            self._dropped += view.tobytes().count(b"\n")
            self._torn = 0 < len(view) < len(batch) and batch[-len(view) - 1] != ord("\n")
        else:
            self._torn = False


def _escaped(line: bytes) -> bytes:
    """Escape the characters of a JSON line that act on a terminal: C1, DEL, and changes of the text direction."""
    if line.isascii() and b"\x7f" not in line:
        return line
    text = line.decode()
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text).encode()


class LibraryHandler(logging.Handler):
    """Writes the log records of libraries as lines of `log`."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a traceback becomes a field of the line."""
        level = next((name for name, number in reversed(LOG_LEVELS.items()) if record.levelno >= number), "debug")
        text = record.getMessage()[:TEXT_CHARACTERS_MAX].strip()
        if record.exc_info and record.exc_info[1]:
            self._log.failure(text, record.exc_info[1], logger=record.name)
        else:
            self._log.write(level, text, logger=record.name)


def capture_libraries(log: Log) -> None:
    """Send the log records and warnings of libraries to `log` from now on."""
    root = logging.getLogger()
    root.handlers = [LibraryHandler(log)]
    root.setLevel(max(log.level, logging.WARNING))
    logging.captureWarnings(capture=True)
