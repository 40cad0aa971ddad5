"""How a server starts and stops: the listening socket, then one worker in this process or several in their own."""

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
from cryostore.core.memory import keep_buffers
from cryostore.core.open_files import raise_open_file_limit
from cryostore.core.time import Clock, wall_clock
from cryostore.options.configuration import Configuration
from cryostore.options.file_modes import require_own_directory
from cryostore.server.http.board import Board, create_board
from cryostore.server.supervisor import COMMAND, Supervisor
from cryostore.server.watching.log import Log, capture_libraries
from cryostore.server.watching.metrics import Page, create_page
from cryostore.server.worker import STDERR, OpenService, Worker, open_default

BIND_SECONDS_MAX = 3.0
"""How long an address may stay taken: the workers of a killed server need a moment to end."""
BIND_AGAIN_SECONDS = 0.05


def serve(
    configuration: Configuration,
    announce: Callable[[str], None],
    *,
    open_service: OpenService = open_default,
    command: Sequence[str] = COMMAND,
    clock: Clock = wall_clock,
    new_id: NewId = random_id,
) -> None:
    """Serve until SIGTERM or SIGINT, finish what is under way and return; a second signal ends the process at once.

    SIGHUP loads the TLS certificate anew.

    `announce` is called once with the line that says where, when requests are answered. Raises CryostoreError if the
    server cannot start.
    """
    if configuration.data_dir is not None:
        require_own_directory(configuration.data_dir)
    listener = bind(configuration.host, configuration.port)
    line = f"listening on {address(configuration, listener)}"
    log = Log(STDERR, clock=clock, level=configuration.log_level)
    capture_libraries(log)
    raise_open_file_limit()
    page = create_page(configuration.workers)
    try:
        with _watched(configuration, log, page):
            if configuration.workers > 1:
                supervisor = Supervisor(
                    configuration, listener, log=log, ready=lambda: announce(line), page=page, command=command
                )
                supervisor.run()
                return
            keep_buffers()
            service = open_service(configuration, clock=clock, new_id=new_id)
            worker = Worker(
                configuration,
                listener,
                service,
                log=log,
                clock=clock,
                new_id=new_id,
                ready=lambda: announce(line),
                board=Board(create_board(1), 0),
                meter=Page(page).meter(0),
            )
            _stop_on_signals(worker)
            worker.run()
    finally:
        os.close(page)
        log.close()


@contextlib.contextmanager
def _watched(configuration: Configuration, log: Log, page: int) -> Iterator[None]:
    """Answer whoever watches the server while the block runs, if the operator wants that."""
    if configuration.metrics_host is None:
        yield
        return
    from cryostore.server.watching.probes import Watch, probes  # noqa: PLC0415 - HTTP and text formats that few servers need

    listener = bind(configuration.metrics_host, configuration.metrics_port, option="--metrics")
    log.write("info", "metrics", address=f"http://{_place(configuration.metrics_host, listener)}/metrics")
    with probes(listener, Watch(Page(page), configuration.data_dir, reserve_bytes=configuration.reserve_bytes)):
        yield


def bind(host: str, port: int, *, option: str = "--listen") -> socket.socket:
    """The listening socket, not listening yet. Raises ConfigurationError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(f"{option} {host}: {error.strerror}") from error
    family, kind, protocol, _, place = found[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + BIND_SECONDS_MAX
    while True:
        try:
            listener.bind(place)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(BIND_AGAIN_SECONDS)
                continue
            listener.close()
            hint = "is another server running there?" if error.errno == errno.EADDRINUSE else ""
            raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}", hint=hint) from error
        return listener


def address(configuration: Configuration, listener: socket.socket) -> str:
    """Where the server is to be found, with the port it really has."""
    return f"{configuration.scheme}://{_place(configuration.host, listener)}"


def _place(host: str, listener: socket.socket) -> str:
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
    signal.signal(signal.SIGHUP, lambda *_: worker.load_certificate())
