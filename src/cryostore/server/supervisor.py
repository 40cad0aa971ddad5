"""The parent of several workers: starts them on one listening socket, starts fallen ones again, and stops them.

It serves nothing itself. One queue brings everything that happens (signals, what workers say, their ends) to one loop,
so nothing here happens at the same time as anything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from time import monotonic

import msgspec

from cryostore.core.errors import ConfigurationError
from cryostore.options.configuration import Configuration, to_json
from cryostore.server.http.board import clear_slot, create_board
from cryostore.server.watching.log import Log
from cryostore.server.watching.metrics import Page
from cryostore.server.worker import Report

COMMAND = (sys.executable, "-m", "cryostore.server.worker")
RESTART_SECONDS_MIN = 0.1
RESTART_SECONDS_MAX = 10.0
STEADY_SECONDS = 60.0
"""A worker that ran this long fell for a new reason: it is started again without delay."""
LOOK_SECONDS = 0.2
"""A signal that comes between two waits is seen after the second one only."""
LINE_BYTES_MAX = 64 * 1024
"""Of what a worker says. A longer line is read in parts."""
STRAY_BYTES_MAX = 200
"""How much of a line that is no report is logged."""
KILL_AFTER_SECONDS = 10.0
"""How much longer than its own grace a worker may take to end."""

_Event = Callable[[], None]


class _Process:
    """A worker process, in its slot on the board, and the thread that watches it."""

    def __init__(
        self, command: Sequence[str], configuration: bytes, listener: socket.socket, board: int, page: int, slot: int
    ) -> None:
        self.slot = slot
        self.started = monotonic()
        self.ready = False
        self.process = subprocess.Popen(  # noqa: S603 - our own module, under the interpreter we run in
            [*command, str(listener.fileno()), str(slot), str(board), str(page)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(listener.fileno(), board, page),
        )
        self.tell(configuration + b"\n")

    def tell(self, line: bytes) -> None:
        """Write to the worker, which may be gone."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(line)
            self.process.stdin.flush()


class Supervisor:
    """Keeps `configuration.workers` workers running; `ready` is called once, when all of them are."""

    def __init__(
        self,
        configuration: Configuration,
        listener: socket.socket,
        *,
        log: Log,
        ready: Callable[[], None],
        page: int,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._page = page
        self._configuration = configuration
        self._listener = listener
        self._log = log
        self._ready: Callable[[], None] | None = ready
        self._command = command
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._processes: set[_Process] = set()
        self._falls = 0
        self._board = -1
        self._stopping = False
        self._deadline = float("inf")
        self._failure: ConfigurationError | None = None

    def run(self) -> None:
        """Serve until told to stop and every worker has ended. Raises ConfigurationError if they cannot start."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._events.put(self._on_signal))
        signal.signal(signal.SIGHUP, lambda *_: self._events.put(self._on_hangup))
        self._board = create_board(self._configuration.workers)
        try:
            self._supervise()
        finally:
            os.close(self._board)
        if self._failure is not None:
            raise self._failure

    def _supervise(self) -> None:
        for _ in range(self._configuration.workers):
            self._start()
        while self._processes or not self._stopping:
            try:
                self._events.get(timeout=max(0.0, min(LOOK_SECONDS, self._deadline - monotonic())))()
            except Empty:
                if monotonic() >= self._deadline:
                    self._kill()

    def _start(self) -> None:
        if self._stopping:
            return
        taken = {process.slot for process in self._processes}
        slot = next(slot for slot in range(self._configuration.workers) if slot not in taken)
        process = _Process(self._command, to_json(self._configuration), self._listener, self._board, self._page, slot)
        self._processes.add(process)
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _watch(self, process: _Process) -> None:
        """Hand on what a worker says until it ends. A line that is no report changes nothing."""
        assert process.process.stdout is not None
        while line := process.process.stdout.readline(LINE_BYTES_MAX):
            try:
                report = msgspec.json.decode(line, type=Report)
            except (msgspec.DecodeError, UnicodeDecodeError):
                text = line[:STRAY_BYTES_MAX].decode(errors="backslashreplace").strip()
                self._log.write("warning", "worker printed a line", pid=process.process.pid, text=text)
            else:
                self._events.put(lambda report=report: self._on_report(process, report))  # type: ignore[misc]
        process.process.wait()
        self._events.put(lambda: self._on_end(process))

    def _on_report(self, process: _Process, report: Report) -> None:
        process.ready = report.ready
        if not report.ready:
            self._log.write("error", "worker cannot start", message=report.message, hint=report.hint)
            if self._ready is not None and self._failure is None:
                self._failure = ConfigurationError(report.message, hint=report.hint)
                self._stop()
        elif self._ready is not None and all(one.ready for one in self._processes):
            self._ready()
            self._ready = None

    def _on_end(self, process: _Process) -> None:
        self._processes.discard(process)
        clear_slot(self._board, process.slot)
        Page(self._page).clear_gauges(process.slot)
        for pipe in (process.process.stdin, process.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        if self._stopping:
            return
        if self._ready is not None:
            self._failure = ConfigurationError(
                f"a worker ended with exit code {process.process.returncode} while it was starting",
                hint="the log lines above say why",
            )
            self._stop()
            return
        self._falls = 1 if monotonic() - process.started > STEADY_SECONDS else self._falls + 1
        delay_seconds = min(RESTART_SECONDS_MIN * 2 ** (self._falls - 1), RESTART_SECONDS_MAX)
        ended = process.process
        self._log.write(
            "error", "worker fell", exit_code=ended.returncode, pid=ended.pid, restart_seconds=delay_seconds
        )
        timer = threading.Timer(delay_seconds, self._events.put, (self._start,))
        timer.daemon = True
        timer.start()

    def _on_signal(self) -> None:
        if self._stopping:
            self._kill()
        else:
            self._stop()

    def _on_hangup(self) -> None:
        for process in self._processes:
            process.tell(b"certificate\n")

    def _stop(self) -> None:
        self._stopping = True
        grace_seconds = self._configuration.drain_seconds + self._configuration.shutdown_seconds_max
        self._deadline = monotonic() + grace_seconds + KILL_AFTER_SECONDS
        self._listener.close()
        for process in self._processes:
            process.tell(b"stop\n")

    def _kill(self) -> None:
        self._deadline = float("inf")
        for process in self._processes:
            process.process.kill()
