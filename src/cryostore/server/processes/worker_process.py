"""The process of one worker under a supervisor: `python -m cryostore.server.processes.worker_process DESCRIPTOR`.

Standard input is the line to the supervisor:

- Its first line is the configuration. Then a line `stop` starts a graceful shutdown, and `certificate` reloads the TLS
  certificate.
- Its end means that the supervisor is gone, for whatever reason: the process exits at once, and the port is free.

On standard output the process tells the supervisor one thing as JSON: that it is ready, or why it cannot start.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

import msgspec

from cryostore.core.errors import CryostoreError
from cryostore.core.ids import random_id
from cryostore.core.process_resources import keep_buffers, raise_open_file_limit
from cryostore.core.time import wall_clock
from cryostore.options.configuration import from_json
from cryostore.server.http.connection_balancer import YIELD_SECONDS, ConnectionCounts
from cryostore.server.monitoring.log import Log, capture_libraries
from cryostore.server.monitoring.metrics import SharedMetrics
from cryostore.server.processes.worker import Worker
from cryostore.server.store_backend import OpenBackend, open_store_backend

STDOUT = 1
STDERR = 2


class StartReport(msgspec.Struct, omit_defaults=True):
    """Whether a worker process could start; `message` and `hint` say why not."""

    ready: bool
    message: str = ""
    hint: str = ""


def main(open_backend: OpenBackend = open_store_backend, *, yield_seconds: float = YIELD_SECONDS) -> int:
    """Run the worker and return the exit code. It leaves a connection to a less busy worker for `yield_seconds`.

    The arguments are the listener's descriptor and, for a shared listener, the slot of this worker and the descriptors
    of the connection counts and of the metrics.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal sends it to all; the supervisor decides what it means
    supervisor = open(0, "rb", buffering=0)  # noqa: SIM115 - a descriptor; unbuffered, for a thread will wait on it
    report = _open_report_pipe()
    configuration = from_json(supervisor.readline())
    log = Log(STDERR, clock=wall_clock, level=configuration.log_level)
    capture_libraries(log)
    raise_open_file_limit()
    keep_buffers()
    listener = socket.socket(fileno=int(sys.argv[1]))
    counts, meter = None, None
    if len(sys.argv) > 2:
        slot = int(sys.argv[2])
        counts, meter = ConnectionCounts(int(sys.argv[3]), slot), SharedMetrics(int(sys.argv[4])).meter(slot)
    try:
        backend = open_backend(configuration, clock=wall_clock, new_id=random_id)
    except CryostoreError as error:
        report(StartReport(ready=False, message=error.message, hint=error.hint))
        return 2
    worker = Worker(
        configuration,
        listener,
        backend,
        log=log,
        clock=wall_clock,
        new_id=random_id,
        ready=lambda: report(StartReport(ready=True)),
        counts=counts,
        meter=meter,
        yield_seconds=yield_seconds,
    )
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    threading.Thread(target=_follow_supervisor, args=(supervisor, worker), name="supervisor", daemon=True).start()
    worker.run()
    log.close()
    return 0


def _follow_supervisor(supervisor: BinaryIO, worker: Worker) -> None:
    for line in supervisor:
        if line == b"stop\n":
            worker.stop()
        elif line == b"certificate\n":
            worker.reload_certificate()
    os._exit(1)  # the supervisor is gone; no request under way was acknowledged


def _open_report_pipe() -> Callable[[StartReport], None]:
    """Return a function that reports to the supervisor, and redirect standard output to standard error.

    Otherwise a library, or a program that this process starts, could write into the pipe or keep it open.
    """
    pipe = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)

    def report(report: StartReport) -> None:
        os.write(pipe, msgspec.json.encode(report) + b"\n")

    return report


if __name__ == "__main__":
    sys.exit(main())
