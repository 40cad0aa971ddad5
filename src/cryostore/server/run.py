"""Start and shutdown of a server: the listening socket, then one worker in this process or several in their own."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from cryostore.core.errors import ConfigurationError
from cryostore.core.ids import NewId, random_id
from cryostore.core.process_resources import keep_buffers, raise_open_file_limit
from cryostore.core.time import Clock, wall_clock
from cryostore.options.configuration import Configuration, require_own_directory
from cryostore.server.http.connection_balancer import ConnectionCounts, create_connection_counts
from cryostore.server.monitoring.log import Log, capture_libraries
from cryostore.server.monitoring.metrics import SharedMetrics, create_shared_metrics
from cryostore.server.processes.supervisor import COMMAND, Supervisor
from cryostore.server.processes.worker import Worker
from cryostore.server.store_backend import OpenBackend, open_store_backend

STDERR = 2
BIND_SECONDS_MAX = 3.0
"""How long to wait for an address in use: the workers of a killed server need a moment to exit."""
BIND_RETRY_SECONDS = 0.05


def serve(
    configuration: Configuration,
    announce: Callable[[str], None],
    *,
    open_backend: OpenBackend = open_store_backend,
    command: Sequence[str] = COMMAND,
    clock: Clock = wall_clock,
    new_id: NewId = random_id,
) -> None:
    """Serve until SIGTERM or SIGINT, shut down gracefully and return; a second signal ends the process at once.

    SIGHUP reloads the TLS certificate. `announce` is called once, when requests are answered, with the line that names
    the address. `command` starts a worker process. Raises CryostoreError if the server cannot start.
    """
    if configuration.data_dir is not None:
        require_own_directory(configuration.data_dir)
    listener = bind_listener(configuration.host, configuration.port)
    line = f"listening on {server_url(configuration, listener)}"
    log = Log(STDERR, clock=clock, level=configuration.log_level)
    capture_libraries(log)
    raise_open_file_limit()
    metrics = create_shared_metrics(configuration.workers)
    try:
        with _probes(configuration, log, metrics):
            if configuration.workers > 1:
                supervisor = Supervisor(
                    configuration, listener, log=log, ready=lambda: announce(line), metrics=metrics, command=command
                )
                supervisor.run()
                return
            keep_buffers()
            backend = open_backend(configuration, clock=clock, new_id=new_id)
            worker = Worker(
                configuration,
                listener,
                backend,
                log=log,
                clock=clock,
                new_id=new_id,
                ready=lambda: announce(line),
                counts=ConnectionCounts(create_connection_counts(1), 0),
                meter=SharedMetrics(metrics).meter(0),
            )
            _stop_on_signals(worker)
            worker.run()
    finally:
        os.close(metrics)
        log.close()


@contextlib.contextmanager
def _probes(configuration: Configuration, log: Log, metrics: int) -> Iterator[None]:
    """Serve metrics and health probes while the block runs, if the operator wants that."""
    if configuration.metrics_host is None:
        yield
        return
    from cryostore.server.monitoring.probes import ServerProbes, probes  # noqa: PLC0415 - HTTP and text formats that few servers need

    listener = bind_listener(configuration.metrics_host, configuration.metrics_port, option="--metrics")
    log.write("info", "metrics", address=f"http://{_host_and_port(configuration.metrics_host, listener)}/metrics")
    answers = ServerProbes(SharedMetrics(metrics), configuration.data_dir, reserve_bytes=configuration.reserve_bytes)
    with probes(listener, answers):
        yield


def bind_listener(
    host: str, port: int, *, option: str = "--listen", wait_seconds_max: float = BIND_SECONDS_MAX
) -> socket.socket:
    """Return a socket bound to the address, not listening yet. Raises ConfigurationError, which may name `option`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(f"{option} {host}: {error.strerror}") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + wait_seconds_max
    while True:
        try:
            listener.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(BIND_RETRY_SECONDS)
                continue
            listener.close()
            hint = "is another server running there?" if error.errno == errno.EADDRINUSE else ""
            raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}", hint=hint) from error
        return listener


def server_url(configuration: Configuration, listener: socket.socket) -> str:
    """The address of the server, with the port that the system chose for port 0."""
    return f"{configuration.scheme}://{_host_and_port(configuration.host, listener)}"


def _host_and_port(host: str, listener: socket.socket) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _stop_on_signals(worker: Worker) -> None:
    signalled = False

    def stop(*_: object) -> None:
        nonlocal signalled
        if signalled:
            os._exit(1)
        signalled = True
        worker.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, lambda *_: worker.reload_certificate())
