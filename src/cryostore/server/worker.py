"""One worker: the event loop, the pool, the maintenance thread and the service of one process.

With one worker it runs in the process of `cryo serve` itself. With several, each is a process of its own, which this
module's `main` begins; then standard input is the line to the parent:

- its first line is the configuration, a line `stop` asks to finish what is under way and end, `certificate` to load
  the TLS certificate anew;
- its end means that the parent is gone, however it went: the worker ends at once, and the port is free.

Standard output tells the parent one thing as JSON: that this worker is ready, or why it will not be.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, Protocol, cast

import msgspec
import uvicorn

from cryostore.core.errors import ConfigurationError, CryostoreError, KeyMissingError, StorageUnavailableError
from cryostore.core.ids import NewId, random_id
from cryostore.core.memory import keep_buffers
from cryostore.core.open_files import raise_open_file_limit
from cryostore.core.time import Clock, wall_clock
from cryostore.maintenance import ScheduledCollection, ScheduledRound, ScheduledScrub
from cryostore.maintenance.duties import reserve
from cryostore.maintenance.figures import Figures, figures
from cryostore.maintenance.nodes import REPORT_SECONDS, Node
from cryostore.model.operation import Operation
from cryostore.options.configuration import Configuration, from_json
from cryostore.server.asgi import Access, Application, Service
from cryostore.server.budget import Budget
from cryostore.server.certificate import Certificate
from cryostore.server.http.acceptor import BACKLOG, Acceptor, connections_max
from cryostore.server.http.board import Board
from cryostore.server.http.connection import INTAKE_BYTES, Connection, State
from cryostore.server.maintenance import Maintenance
from cryostore.server.pool import Pool
from cryostore.server.unverified import Unverified
from cryostore.server.watching.failure import ADVICE, Failures
from cryostore.server.watching.log import Log, capture_libraries
from cryostore.server.watching.metrics import Meter, Page, private_meter
from cryostore.service import Service as CryostoreService
from cryostore.service.opening.address import SharedStoreAddress
from cryostore.service.opening.open import open_service
from cryostore.service.opening.open_shared import open_shared_service
from cryostore.service.settings import Settings

STDOUT = 1
STDERR = 2
TALLIED = ("chunks_stored", "bytes_stored", "chunks_shared", "bytes_shared")
POOL_CLOSE_SECONDS = 1.0


class OpenService(Protocol):
    """How a service is opened on the store that a configuration names."""

    def __call__(self, configuration: Configuration, *, clock: Clock, new_id: NewId) -> Service:
        """Open it; a directory's, and create what is missing. Raises CryostoreError."""
        ...


class Report(msgspec.Struct, omit_defaults=True):
    """What a worker process tells its parent."""

    ready: bool
    message: str = ""
    hint: str = ""


class Worker:
    """Serves `listener` until told to stop. `ready` is called once requests are answered.

    With `board`, the listener is shared with other workers.
    """

    def __init__(
        self,
        configuration: Configuration,
        listener: socket.socket,
        service: Service,
        *,
        log: Log,
        clock: Clock,
        new_id: NewId,
        ready: Callable[[], None],
        board: Board | None = None,
        meter: Meter | None = None,
    ) -> None:
        meter = meter or private_meter()
        self._failures = Failures(log, meter)
        self._configuration = configuration
        self._listener = listener
        self._service = service
        self._pool = Pool(configuration.threads)
        budget = Budget(configuration.body_bytes_in_flight_max, wait_seconds_max=configuration.body_wait_seconds_max)
        application = Application(
            service,
            pool=self._pool,
            budget=budget,
            log=log,
            clock=service.clock or clock,
            new_id=new_id,
            limits=configuration.limits,
            region=configuration.region,
            failures=self._failures,
            unverified=Unverified.of(configuration),
        )
        signs = _Signs(service, self._pool, budget, meter, log, configuration.connection.connections_max)
        self._certificate = Certificate(configuration.tls_cert, configuration.tls_key, log)
        self._server = _Server(
            _uvicorn_config(configuration, application, new_id),
            ready,
            board,
            signs,
            self._certificate,
        )

    def run(self) -> None:
        """Serve; returns when all that was under way is finished, or its time is over."""
        period_seconds = self._configuration.maintenance_seconds
        try:
            with (
                Maintenance(
                    self._service.maintain, self._service.recover, period_seconds=period_seconds, log=self._failures
                ),
                Maintenance(self._service.report, period_seconds=REPORT_SECONDS, log=self._failures),
            ):
                self._server.run(sockets=[self._listener])
        finally:
            if self._pool.close(wait_seconds_max=POOL_CLOSE_SECONDS):
                self._service.close()

    def stop(self) -> None:
        """Ask `run` to finish: to go on for `drain_seconds`, and to end with what is under way then.

        May be called from any thread or signal handler, and again.
        """
        self._server.leave(self._configuration.drain_seconds)

    def load_certificate(self) -> None:
        """Load the TLS certificate anew, if there is one. As `stop`."""
        self._certificate.asked = True


class _Signs:
    """What a worker shows of itself several times a second."""

    def __init__(
        self, service: Service, pool: Pool, budget: Budget, meter: Meter, log: Log, connections_most: int
    ) -> None:
        self._connections_max = connections_most
        self._service = service
        self._pool = pool
        self._budget = budget
        self._log = log
        self._took_writes = True
        self._draining = False
        self.meter = meter

    def leave(self) -> None:
        """Show from now on that the worker was told to stop."""
        self._draining = True
        self.meter.show(draining=True)

    def show(self, connections: int, *, can_make_room: bool = True) -> None:
        """Show the present state; log a line when new data begins to be refused, and when it is taken again."""
        self._service.publish(self.meter)
        self.meter.show(
            connections=connections,
            full=not can_make_room and connections >= min(self._connections_max, connections_max()),
            draining=self._draining,
            requests_running=self._pool.running,
            requests_waiting=self._pool.waiting,
            body_bytes_held=self._budget.bytes_max - self._budget.free_bytes,
            body_bytes_max=self._budget.bytes_max,
        )
        takes_writes = self._service.takes_writes
        if takes_writes != self._took_writes:
            self._took_writes = takes_writes
            if takes_writes:
                self._log.write("info", "writes are taken again", message="the reserve is back")
            else:
                message = "the disk is full, and the reserve is in use for deletes and garbage collection"
                self._log.write("error", "writes are refused", message=message, hint=ADVICE["full"])


class _Server(uvicorn.Server):
    """uvicorn's server, with the signals left to the process, a call when it is ready, and listeners to share."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        board: Board | None,
        signs: _Signs,
        certificate: Certificate,
    ) -> None:
        super().__init__(config)
        self._certificate = certificate
        self.server_state: State = State()
        self._signs = signs
        self._ready = ready
        self._board = board
        self._acceptor: Acceptor | None = None
        self._leaves_at = float("inf")

    def leave(self, after_seconds: float) -> None:
        """Say that this worker ends, and end after so long; later calls change nothing."""
        self._signs.leave()
        self.server_state.leaving = True
        self._leaves_at = min(self._leaves_at, monotonic() + after_seconds)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._board is None or not sockets:
            await super().startup(sockets)
        else:
            await super().startup([])
            self._acceptor = Acceptor(
                sockets[0],
                self._new_connection,
                board=self._board,
                connections=lambda: len(self.server_state.connections),
                tls=self.config.ssl,
                refused=lambda: self._signs.meter.add("connections_refused", 1),
                make_room=lambda: self.server_state.places.make_room(asyncio.get_running_loop().time()),
            )
            self.servers.append(self._acceptor)  # type: ignore[arg-type] # it is closed as uvicorn closes its own
        gc.collect()
        gc.freeze()  # what start-up made stays: no collection needs to look at it again
        self._signs.show(0)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        if self._acceptor is not None:
            self._acceptor.report()
        self._signs.show(len(self.server_state.connections), can_make_room=self.server_state.places.can_make_room)
        self._certificate.look_now_and_then(self.config.ssl, counter)
        if self._leaves_at < float("inf"):
            self.should_exit = monotonic() >= self._leaves_at
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
        http=cast("type[asyncio.Protocol]", protocol),  # one that has its own buffers will do
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


class OwnService:
    """Cryostore's own service, with the periodic duties that a server owes it."""

    def __init__(self, service: CryostoreService, node: Node | None = None) -> None:
        """`node` is this process among those of a shared store, and has reported."""
        self._service = service
        self._node = node
        self._key_away = False
        self._published: dict[str, float] = dict.fromkeys(TALLIED, 0)
        self._figures: Figures | None = None
        self._catalog_away = False
        self._round = ScheduledRound(service)
        self._collection = ScheduledCollection(service.context)
        self._scrub = ScheduledScrub(service.context)
        self.access: Access = service.access

    def call(self, operation: Operation[Any], caller: Any) -> Any:
        """See `Service.call`."""
        return self._service.call(operation, caller)

    @property
    def takes_writes(self) -> bool:
        """See asgi.Service."""
        return self._service.context.reserve.held

    def publish(self, meter: Meter) -> None:
        """See asgi.Service."""
        for name in TALLIED:
            before, now = self._published[name], getattr(self._service.context.tally, name)
            if now != before:
                meter.add(name, now - before)
                self._published[name] = now
        for part, traffic in self._service.context.tally.traffic.items():
            for number, now in traffic.numbers().items():
                name = f"{part} {number}"
                if more := now - self._published.get(name, 0):
                    meter.add(name, more)
                    self._published[name] = now
        meter.show(
            catalog_connections=getattr(self._service.context.database, "connections", 0),
            store_away=self._catalog_away or self._service.outdated,
            key_away=self._key_away or (self._node is not None and self._node.lacking_key is not None),
            blobs_away=self._node is not None and self._node.alone,
        )
        seen, self._figures = self._figures, None
        if seen is not None:
            meter.show_store(**seen._asdict())

    @property
    def clock(self) -> Clock:
        """See asgi.Service."""
        return self._service.context.clock

    def recover(self) -> None:
        """See asgi.Service."""
        context = self._service.context
        context.store.forget_deleted()
        if not self.takes_writes:
            reserve.keep(context)
        self._ask_catalog()

    def report(self) -> None:
        """See asgi.Service."""
        if self._node is not None:
            self._node.report()

    def _ask_catalog(self) -> None:
        """See whether the catalog answers, and the keyring has the key in use: else no requests should be sent here."""
        keyring = self._service.context.keys.keyring
        try:
            keyring.active()
        except StorageUnavailableError:
            self._catalog_away = True
            raise
        except KeyMissingError:
            self._catalog_away, self._key_away = False, True
            raise
        self._catalog_away = self._key_away = False

    def maintain(self) -> None:
        """One round of duties, and a portion of garbage collection and of scrubbing, if it falls to this process."""
        self._service.look_around()
        try:
            self._round.go_on()
        finally:
            try:
                self._collection.go_on()
            finally:
                self._scrub.go_on()
            self._figures = figures(self._service.context)

    def close(self) -> None:
        """See `Service.close`."""
        if self._node is not None:
            with contextlib.suppress(StorageUnavailableError):  # else its report grows old
                self._node.leave()
        self._service.close()


def open_default(configuration: Configuration, *, clock: Clock, new_id: NewId) -> Service:
    """Open Cryostore's own service. A shared store goes by its catalog's time, not by `clock`."""
    settings = replace(configuration.settings, reserve_bytes=configuration.reserve_bytes)
    if configuration.data_dir is None:
        shared = _open_shared(configuration, settings, new_id)
        node = Node(shared.context, shared.try_blobs)
        with contextlib.suppress(StorageUnavailableError, KeyMissingError):  # it is tried again, and logged
            node.report()
        return OwnService(shared, node)
    data_dir = configuration.data_dir

    def on_keyring_created(path: Path) -> None:
        log = Log(STDERR, clock=clock)  # whatever level is asked for: this is said once in a store's life
        log.write("info", f"made the keyring {path.resolve()}: without it nothing in {data_dir} can be read")
        log.write("info", "losing it loses every backup: keep a copy away from the data (`cryo key export --help`)")
        log.close()

    service = open_service(
        data_dir,
        keyring=configuration.keyring,
        clock=clock,
        new_id=new_id,
        limits=configuration.limits,
        settings=settings,
        on_keyring_created=on_keyring_created,
    )
    return OwnService(service)


def _open_shared(configuration: Configuration, settings: Settings, new_id: NewId) -> CryostoreService:
    """The service on a shared store, whose region is the only one that signatures may be bound to name."""
    place = SharedStoreAddress(configuration.catalog or "", configuration.blobs or "", configuration.keyring or "")
    service = open_shared_service(place, new_id=new_id, limits=configuration.limits, settings=settings)
    region = service.context.settings.region
    if configuration.region not in (None, region):
        service.close()
        raise ConfigurationError(
            f"--region is {configuration.region}, and the store's region is {region}",
            hint="it is the same on all nodes, and was chosen by `cryo init`",
        )
    return service


def main(opener: OpenService = open_default) -> int:
    """A worker process: `python -m cryostore.server.worker DESCRIPTOR`, begun by the supervisor.

    Behind the listener's descriptor may come the worker's place, and the descriptors of the board and of the page.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal sends it to all; the parent decides what it means
    parent = open(0, "rb", buffering=0)  # noqa: SIM115 - a descriptor; unbuffered, for a thread will wait on it
    report = _reporting()
    configuration = from_json(parent.readline())
    log = Log(STDERR, clock=wall_clock, level=configuration.log_level)
    capture_libraries(log)
    raise_open_file_limit()
    keep_buffers()
    listener = socket.socket(fileno=int(sys.argv[1]))
    board, meter = None, None
    if len(sys.argv) > 2:
        slot = int(sys.argv[2])
        board, meter = Board(int(sys.argv[3]), slot), Page(int(sys.argv[4])).meter(slot)
    try:
        service = opener(configuration, clock=wall_clock, new_id=random_id)
    except CryostoreError as error:
        report(Report(ready=False, message=error.message, hint=error.hint))
        return 2
    worker = Worker(
        configuration,
        listener,
        service,
        log=log,
        clock=wall_clock,
        new_id=random_id,
        ready=lambda: report(Report(ready=True)),
        board=board,
        meter=meter,
    )
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    threading.Thread(target=_follow_parent, args=(parent, worker), name="parent", daemon=True).start()
    worker.run()
    log.close()
    return 0


def _follow_parent(parent: BinaryIO, worker: Worker) -> None:
    for line in parent:
        if line == b"stop\n":
            worker.stop()
        elif line == b"certificate\n":
            worker.load_certificate()
    os._exit(1)  # the parent is gone; whatever is under way was not acknowledged


def _reporting() -> Callable[[Report], None]:
    """A function that tells the parent. The pipe to it is ours alone: what else prints to stdout prints to stderr.

    A library or a program that this process starts would otherwise write into it, or keep it open.
    """
    pipe = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)

    def report(report: Report) -> None:
        os.write(pipe, msgspec.json.encode(report) + b"\n")

    return report


if __name__ == "__main__":
    sys.exit(main())
