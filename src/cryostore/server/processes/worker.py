"""A worker: the event loop, thread pool, periodic tasks and backend of one process.

With one worker it runs in the process of `cryo serve` itself. Several workers are processes of their own
(`worker_process`) under a supervisor. Not here: what a request means (`requests.application`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import cast

import uvicorn

from cryostore.core.ids import NewId
from cryostore.core.time import Clock
from cryostore.maintenance.nodes import REPORT_SECONDS
from cryostore.options.configuration import Configuration
from cryostore.server.backend import Backend
from cryostore.server.http.connection import INTAKE_BYTES, Connection
from cryostore.server.http.connection_balancer import (
    BACKLOG,
    YIELD_SECONDS,
    ConnectionBalancer,
    ConnectionCounts,
    connections_max,
)
from cryostore.server.http.shared_state import SharedState
from cryostore.server.monitoring.failure import ADVICE, Failures
from cryostore.server.monitoring.log import Log
from cryostore.server.monitoring.metrics import Meter, private_meter
from cryostore.server.processes.certificate import Certificate
from cryostore.server.requests.application import Application
from cryostore.server.requests.body import BodyBudget, UnverifiedBodies
from cryostore.server.thread_pool import ThreadPool

POOL_CLOSE_SECONDS = 1.0
RECOVERY_SECONDS = 1.0


class Worker:
    """Serves `listener` until told to stop. `ready` is called once requests are answered.

    With `counts`, the listener is shared with other workers.
    """

    def __init__(
        self,
        configuration: Configuration,
        listener: socket.socket,
        backend: Backend,
        *,
        log: Log,
        clock: Clock,
        new_id: NewId,
        ready: Callable[[], None],
        counts: ConnectionCounts | None = None,
        meter: Meter | None = None,
        yield_seconds: float = YIELD_SECONDS,
    ) -> None:
        meter = meter or private_meter()
        self._failures = Failures(log, meter)
        self._configuration = configuration
        self._listener = listener
        self._backend = backend
        self._pool = ThreadPool(configuration.threads)
        budget = BodyBudget(
            configuration.body_bytes_in_flight_max, wait_seconds_max=configuration.body_wait_seconds_max
        )
        application = Application(
            backend,
            pool=self._pool,
            budget=budget,
            log=log,
            clock=backend.clock or clock,
            new_id=new_id,
            limits=configuration.limits,
            region=configuration.region,
            failures=self._failures,
            unverified=UnverifiedBodies.of(configuration),
        )
        gauges = _Gauges(backend, self._pool, budget, meter, log, configuration.connection.connections_max)
        self._certificate = Certificate(configuration.tls_cert, configuration.tls_key, log)
        self._server = _EventLoopServer(
            _uvicorn_config(configuration, application, new_id),
            ready,
            counts,
            gauges,
            self._certificate,
            yield_seconds,
        )

    def run(self) -> None:
        """Serve; returns when every request under way is finished, or the time for that is over."""
        period_seconds = self._configuration.maintenance_seconds
        try:
            with (
                PeriodicTasks(
                    self._backend.maintain, self._backend.recover, period_seconds=period_seconds, log=self._failures
                ),
                PeriodicTasks(self._backend.report, period_seconds=REPORT_SECONDS, log=self._failures),
            ):
                self._server.run(sockets=[self._listener])
        finally:
            if self._pool.close(wait_seconds_max=POOL_CLOSE_SECONDS):
                self._backend.close()

    def stop(self) -> None:
        """Start a graceful shutdown: `run` serves on for `drain_seconds`, then finishes the requests under way.

        May be called from any thread or signal handler, and repeatedly.
        """
        self._server.drain(self._configuration.drain_seconds)

    def reload_certificate(self) -> None:
        """Reload the TLS certificate, if there is one. May be called from any thread or signal handler."""
        self._certificate.reload_requested = True


class _Gauges:
    """The state of a worker, published to its meter several times a second."""

    def __init__(
        self, backend: Backend, pool: ThreadPool, budget: BodyBudget, meter: Meter, log: Log, connections_most: int
    ) -> None:
        self._connections_max = connections_most
        self._backend = backend
        self._pool = pool
        self._budget = budget
        self._log = log
        self._took_writes = True
        self._draining = False
        self.meter = meter

    def drain(self) -> None:
        """Publish from now on that the worker was told to stop."""
        self._draining = True
        self.meter.show(draining=True)

    def publish(self, connections: int, *, can_make_room: bool = True) -> None:
        """Publish the present state; log when the disk becomes full and writes are refused, and when it recovers."""
        self._backend.publish(self.meter)
        self.meter.show(
            connections=connections,
            full=not can_make_room and connections >= min(self._connections_max, connections_max()),
            draining=self._draining,
            requests_running=self._pool.running,
            requests_waiting=self._pool.waiting,
            body_bytes_held=self._budget.bytes_max - self._budget.free_bytes,
            body_bytes_max=self._budget.bytes_max,
        )
        takes_writes = self._backend.takes_writes
        if takes_writes != self._took_writes:
            self._took_writes = takes_writes
            if takes_writes:
                self._log.write("info", "writes are accepted again", message="the reserve is back")
            else:
                message = "the disk is full, and the reserve is in use for deletes and garbage collection"
                self._log.write("error", "writes are refused", message=message, hint=ADVICE["full"])


class _EventLoopServer(uvicorn.Server):
    """uvicorn's server without its signal handlers, with a shared listener, and with a call when it is ready."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        counts: ConnectionCounts | None,
        gauges: _Gauges,
        certificate: Certificate,
        yield_seconds: float,
    ) -> None:
        super().__init__(config)
        self._certificate = certificate
        self.server_state: SharedState = SharedState()
        self._gauges = gauges
        self._ready = ready
        self._counts = counts
        self._balancer: ConnectionBalancer | None = None
        self._exit_at = float("inf")
        self._yield_seconds = yield_seconds

    def drain(self, exit_after_seconds: float) -> None:
        """Announce the end of this worker, and exit after so long. The earliest time of several calls counts."""
        self._gauges.drain()
        self.server_state.draining = True
        self._exit_at = min(self._exit_at, monotonic() + exit_after_seconds)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._counts is None or not sockets:
            await super().startup(sockets)
        else:
            await super().startup([])
            self._balancer = ConnectionBalancer(
                sockets[0],
                self._new_connection,
                counts=self._counts,
                connections=lambda: len(self.server_state.connections),
                tls=self.config.ssl,
                refused=lambda: self._gauges.meter.add("connections_refused", 1),
                yield_seconds=self._yield_seconds,
                make_room=lambda: self.server_state.unproven.make_room(asyncio.get_running_loop().time()),
            )
            self.servers.append(self._balancer)  # type: ignore[arg-type] # it is closed as uvicorn closes its own
        gc.collect()
        gc.freeze()  # objects made during start-up stay: no later collection needs to visit them
        self._gauges.publish(0)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        if self._balancer is not None:
            self._balancer.publish_count()
        unproven = self.server_state.unproven
        self._gauges.publish(len(self.server_state.connections), can_make_room=unproven.can_make_room)
        self._certificate.reload_if_changed(self.config.ssl, counter)
        if self._exit_at < float("inf"):
            self.should_exit = monotonic() >= self._exit_at
        return await super().on_tick(counter)

    def _new_connection(self) -> asyncio.BaseProtocol:
        make = cast("Callable[..., asyncio.BaseProtocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state={})

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _uvicorn_config(configuration: Configuration, application: Application, new_id: NewId) -> uvicorn.Config:
    protocol = partial(
        Connection,
        configuration.connection,
        head_bytes_max=configuration.limits.request_head_bytes_max,
        new_id=new_id,
        intake=memoryview(bytearray(INTAKE_BYTES)),
    )
    return uvicorn.Config(
        application,
        http=cast("type[asyncio.Protocol]", protocol),  # uvicorn accepts a buffered protocol as well
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, round(configuration.shutdown_seconds_max)),
        ssl_certfile=configuration.tls_cert,
        ssl_keyfile=configuration.tls_key,
    )


class PeriodicTasks:
    """Calls `maintain` every `period_seconds`, and `recover` at least every second; a context manager.

    A failure is logged, and the next period tries again.
    """

    def __init__(
        self,
        maintain: Callable[[], None],
        recover: Callable[[], None] = lambda: None,
        *,
        period_seconds: float,
        log: Log | Failures,
    ) -> None:
        self._recover = recover
        self._maintain = maintain
        self._period_seconds = period_seconds
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=self._period_seconds)

    def _run(self) -> None:
        due = monotonic() + self._period_seconds
        while not self._stop.wait(min(self._period_seconds, RECOVERY_SECONDS)):
            self._run_task(self._recover)
            if monotonic() >= due:
                self._run_task(self._maintain)
                due = monotonic() + self._period_seconds

    def _run_task(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # noqa: BLE001 - one failure must not end all later rounds
            self._log.failure("maintenance failed", error)
