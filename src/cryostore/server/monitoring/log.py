"""Log lines: one JSON object each, written to one file descriptor by a thread of its own.

Whoever logs never waits for the reader of the log: lines queue up, and when too many do, they are counted instead of
kept. What could act on a terminal is escaped, so no value can forge a line. Lines hold no secrets because nobody hands
any over: no headers, no query strings, no paths (chunk tokens travel there), no bodies.
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

    def __init__(self, descriptor: int, *, clock: Clock, level: str = "info") -> None:
        self.level = LOG_LEVELS[level]
        self._descriptor = descriptor
        self._clock = clock
        self._encode = msgspec.json.Encoder().encode
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._torn = False
        """Whether the last line written is the beginning of one."""
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, level: str, event: str, **fields: Any) -> None:
        """Log `event` with its fields; a field that is None is left out."""
        if LOG_LEVELS[level] < self.level:
            return
        line: dict[str, Any] = {"time": iso_text(seconds(self._clock())), "level": level, "event": event}
        line |= {name: value for name, value in fields.items() if value is not None}
        if len(self._lines) >= LINES_WAITING_MAX:
            self._dropped += 1
            return
        self._lines.append(_visible(self._encode(line)))
        if not self._wake.is_set():
            self._wake.set()

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        """Log an error nobody expected, with its traceback."""
        text = "".join(traceback.format_exception(error))
        self.write("error", event, error=type(error).__name__, traceback=text[-TEXT_CHARACTERS_MAX:], **fields)

    def close(self) -> None:
        """Write what is left. Lines that come later are not written."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(BATCH_SECONDS)  # gather a batch: a wake-up for each line would cost more than the line
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
        except OSError:  # nobody reads the log any more, or its disk is full; the service goes on without
            self._dropped += view.tobytes().count(b"\n")
            self._torn = 0 < len(view) < len(batch) and batch[-len(view) - 1] != ord("\n")
        else:
            self._torn = False


def _visible(line: bytes) -> bytes:
    """A line of JSON in which what could act on a terminal is escaped: C1, DEL, marks that reverse the writing."""
    if line.isascii() and b"\x7f" not in line:
        return line
    text = line.decode()
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text).encode()


class LibraryHandler(logging.Handler):
    """Turns the log records of libraries into our lines."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; tracebacks go into the line."""
        level = next((name for name, number in reversed(LOG_LEVELS.items()) if record.levelno >= number), "debug")
        text = record.getMessage()[:TEXT_CHARACTERS_MAX].strip()
        if record.exc_info and record.exc_info[1]:
            self._log.failure(text, record.exc_info[1], logger=record.name)
        else:
            self._log.write(level, text, logger=record.name)


def capture_libraries(log: Log) -> None:
    """Send what libraries log from now on to `log`."""
    root = logging.getLogger()
    root.handlers = [LibraryHandler(log)]
    root.setLevel(max(log.level, logging.WARNING))
    logging.captureWarnings(capture=True)
