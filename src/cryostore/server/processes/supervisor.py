"""The supervisor of several workers: starts them on one listening socket, restarts those that exit, and stops them.

It serves nothing itself. One queue brings every event (signals, reports of workers, their exits) to one loop, so no two
events are handled at the same time.
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
from cryostore.server.http.connection_balancer import create_connection_counts, mark_absent
from cryostore.server.monitoring.log import Log
from cryostore.server.monitoring.metrics import SharedMetrics
from cryostore.server.processes.worker_process import StartReport

COMMAND = (sys.executable, "-m", "cryostore.server.processes.worker_process")
RESTART_SECONDS_MIN = 0.1
RESTART_SECONDS_MAX = 10.0
STEADY_SECONDS = 60.0
"""A worker that ran this long exited for a new reason: the restart delay starts at its minimum again."""
POLL_SECONDS = 0.2
"""A signal that comes between two waits is handled after the second one only."""
LINE_BYTES_MAX = 64 * 1024
"""The longest line of a worker that is read whole. A longer line is read in parts."""
STRAY_BYTES_MAX = 200
"""How much of a line that is no report is logged."""
KILL_AFTER_SECONDS = 10.0
"""How much longer than its time for a graceful shutdown a worker may take before it is killed."""

_Event = Callable[[], None]


class _WorkerProcess:
    """A worker process and its slot in the connection counts and the metrics."""

    def __init__(
        self,
        command: Sequence[str],
        configuration: bytes,
        listener: socket.socket,
        counts: int,
        metrics: int,
        slot: int,
    ) -> None:
        self.slot = slot
        self.started = monotonic()
        self.ready = False
        self.process = subprocess.Popen(  # noqa: S603 - our own module, under the interpreter we run in
            [*command, str(listener.fileno()), str(slot), str(counts), str(metrics)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(listener.fileno(), counts, metrics),
        )
        self.send_line(configuration)

    def send_line(self, line: bytes) -> None:
        """Write a line to the worker, which may have exited."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()


class Supervisor:
    """Keeps `configuration.workers` workers running; `ready` is called once, when all of them are ready.

    `metrics` is the descriptor of the shared metrics, which stays the caller's.
    """

    def __init__(
        self,
        configuration: Configuration,
        listener: socket.socket,
        *,
        log: Log,
        ready: Callable[[], None],
        metrics: int,
        command: Sequence[str] = COMMAND,
        restart_seconds_min: float = RESTART_SECONDS_MIN,
        kill_after_seconds: float = KILL_AFTER_SECONDS,
    ) -> None:
        self._metrics = metrics
        self._configuration = configuration
        self._listener = listener
        self._log = log
        self._ready: Callable[[], None] | None = ready
        self._command = command
        self._restart_seconds_min = restart_seconds_min
        self._kill_after_seconds = kill_after_seconds
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._processes: set[_WorkerProcess] = set()
        self._exits_in_a_row = 0
        self._counts = -1
        self._stopping = False
        self._deadline = float("inf")
        self._failure: ConfigurationError | None = None

    def run(self) -> None:
        """Serve until told to stop and every worker has exited. Raises ConfigurationError if they cannot start."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._events.put(self._on_signal))
        signal.signal(signal.SIGHUP, lambda *_: self._events.put(self._on_hangup))
        self._counts = create_connection_counts(self._configuration.workers)
        try:
            self._supervise()
        finally:
            os.close(self._counts)
        if self._failure is not None:
            raise self._failure

    def _supervise(self) -> None:
        for _ in range(self._configuration.workers):
            self._start()
        while self._processes or not self._stopping:
            try:
                self._events.get(timeout=max(0.0, min(POLL_SECONDS, self._deadline - monotonic())))()
            except Empty:
                if monotonic() >= self._deadline:
                    self._kill()

    def _start(self) -> None:
        if self._stopping:
            return
        taken = {process.slot for process in self._processes}
        slot = next(slot for slot in range(self._configuration.workers) if slot not in taken)
        process = _WorkerProcess(
            self._command, to_json(self._configuration), self._listener, self._counts, self._metrics, slot
        )
        self._processes.add(process)
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _watch(self, process: _WorkerProcess) -> None:
        """Queue the reports of a worker until it exits. Logs and ignores a line that is no report."""
        assert process.process.stdout is not None
        while line := process.process.stdout.readline(LINE_BYTES_MAX):
            try:
                report = msgspec.json.decode(line, type=StartReport)
            except (msgspec.DecodeError, UnicodeDecodeError):
                text = line[:STRAY_BYTES_MAX].decode(errors="backslashreplace").strip()
                self._log.write("warning", "worker printed a line", pid=process.process.pid, text=text)
            else:
                self._events.put(lambda report=report: self._on_report(process, report))  # type: ignore[misc]
        process.process.wait()
        self._events.put(lambda: self._on_exit(process))

    def _on_report(self, process: _WorkerProcess, report: StartReport) -> None:
        process.ready = report.ready
        if not report.ready:
            self._log.write("error", "worker cannot start", message=report.message, hint=report.hint)
            if self._ready is not None and self._failure is None:
                self._failure = ConfigurationError(report.message, hint=report.hint)
                self._stop()
        elif self._ready is not None and all(one.ready for one in self._processes):
            self._ready()
            self._ready = None

    def _on_exit(self, process: _WorkerProcess) -> None:
        self._processes.discard(process)
        mark_absent(self._counts, process.slot)
        SharedMetrics(self._metrics).clear_gauges(process.slot)
        for pipe in (process.process.stdin, process.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        if self._stopping:
            return
        if self._ready is not None:
            self._failure = ConfigurationError(
                f"a worker exited with code {process.process.returncode} while it was starting",
                hint="the log lines above say why",
            )
            self._stop()
            return
        self._restart_later(process)

    def _restart_later(self, process: _WorkerProcess) -> None:
        """Start a worker in place of `process` after a delay that doubles with each exit in a row."""
        steady = monotonic() - process.started > STEADY_SECONDS
        self._exits_in_a_row = 1 if steady else self._exits_in_a_row + 1
        delay_seconds = min(self._restart_seconds_min * 2 ** (self._exits_in_a_row - 1), RESTART_SECONDS_MAX)
        exited = process.process
        self._log.write(
            "error", "worker exited", exit_code=exited.returncode, pid=exited.pid, restart_seconds=delay_seconds
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
            process.send_line(b"certificate")

    def _stop(self) -> None:
        self._stopping = True
        grace_seconds = self._configuration.drain_seconds + self._configuration.shutdown_seconds_max
        self._deadline = monotonic() + grace_seconds + self._kill_after_seconds
        self._listener.close()
        for process in self._processes:
            process.send_line(b"stop")

    def _kill(self) -> None:
        self._deadline = float("inf")
        for process in self._processes:
            process.process.kill()
