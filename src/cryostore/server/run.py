"""How a server starts and stops: the listening socket, then one worker in this process or several in their own."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence

from cryostore.core.errors import ConfigurationError
from cryostore.core.ids import NewId, random_id
from cryostore.core.memory import keep_buffers
from cryostore.core.time import Clock, wall_clock
from cryostore.server.config import Configuration
from cryostore.server.log import Log, capture_libraries
from cryostore.server.supervisor import COMMAND, Supervisor
from cryostore.server.worker import STDERR, OpenService, Worker, open_default, raise_descriptor_limit

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

    `announce` is called once with the line that says where, when requests are answered. Raises CryostoreError if the
    server cannot start.
    """
    listener = bind(configuration)
    line = f"listening on {address(configuration, listener)}"
    log = Log(STDERR, clock=clock, level=configuration.log_level)
    capture_libraries(log)
    try:
        if configuration.workers > 1:
            Supervisor(configuration, listener, log=log, ready=lambda: announce(line), command=command).run()
            return
        raise_descriptor_limit()
        keep_buffers()
        service = open_service(configuration.data_dir, clock=clock, new_id=new_id, limits=configuration.limits)
        worker = Worker(
            configuration,
            listener,
            service,
            log=log,
            clock=clock,
            new_id=new_id,
            ready=lambda: announce(line),
        )
        _stop_on_signals(worker)
        worker.run()
    finally:
        log.close()


def bind(configuration: Configuration) -> socket.socket:
    """The listening socket, not listening yet. Raises ConfigurationError."""
    try:
        found = socket.getaddrinfo(
            configuration.host, configuration.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigurationError(f"--listen {configuration.host}: {error.strerror}") from error
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
            raise ConfigurationError(
                f"cannot listen on {configuration.host}:{configuration.port}: {error.strerror}", hint=hint
            ) from error
        return listener


def address(configuration: Configuration, listener: socket.socket) -> str:
    """Where the server is to be found, with the port it really has."""
    host = f"[{configuration.host}]" if ":" in configuration.host else configuration.host
    return f"{configuration.scheme}://{host}:{listener.getsockname()[1]}"


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
