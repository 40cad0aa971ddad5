"""Health probes and metrics over HTTP: `/metrics`, `/-/live`, `/-/ready`, `/-/serving`, on an address of their own.

They need no signature and give no data away: numbers only, none of them from a client's input. They run in a thread of
the process that was started, beside its workers, and answer when the workers do not. No client delays another: each has
a total time, and when the connections are used up the oldest one is closed. Probes that look at the disk run in other
threads than those that do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

from cryostore.chunks.disk_reserve import NO_RESERVE, DiskReserve
from cryostore.core.errors import CryostoreError
from cryostore.server.monitoring.exposition import CONTENT_TYPE, PROMPT_SECONDS, DiskState, draining, living, text
from cryostore.server.monitoring.metrics import SharedMetrics
from cryostore.server.thread_pool import ThreadPool

METRICS, LIVE, READY, SERVING = "/metrics", "/-/live", "/-/ready", "/-/serving"
REQUEST_SECONDS_MAX = 5.0
"""For a request and its answer in all."""
DISK_SECONDS_MAX = 3.0
STOP_SECONDS_MAX = 1.0
CONNECTIONS_MAX = 64
DISK_REQUESTS_MAX = 16
"""How many requests for one path may wait for the disk at once."""
HEAD_BYTES_MAX = 8192
BACKLOG = 128
THREADS = 2
WITHOUT_DESCRIPTORS_SECONDS = 0.1
PROBE_BYTES = 4096
PLAIN = "text/plain; charset=utf-8"
TROUBLES = {
    "store_away": "the catalog does not answer, or no longer matches this server",
    "key_away": "the keyring of this server lacks the master key in use, or one that other servers have: see the log",
    "blobs_away": "this server cannot use the blob store, but others can: check its clock, credentials and route",
}
"""Why this server is not ready, by the gauge of a worker."""
Reply = tuple[int, str, bytes]
"""Status, content type and body."""
BUSY: Reply = (503, PLAIN, b"the disk does not answer, or too many requests wait for it\n")


class ServerProbes:
    """The answers of the probes, from the metrics of the server and the disk of its data directory, if it has one."""

    def __init__(self, metrics: SharedMetrics, data_dir: Path | None, *, reserve_bytes: int) -> None:
        self._metrics = metrics
        self._data_dir = data_dir
        self._reserve = NO_RESERVE if data_dir is None else DiskReserve(data_dir, reserve_bytes)

    def metrics(self) -> Reply:
        """Return the metrics."""
        return 200, CONTENT_TYPE, text(self._metrics, self._disk())

    def live(self) -> Reply:
        """Answer whether the event loop of a worker runs; a server that is not live should be restarted.

        A server that was told to stop is live until it exits: it finishes the requests under way, and then exits.
        """
        return _verdict(
            None if living(self._metrics) or draining(self._metrics) else "no worker has a recent heartbeat"
        )

    def ready(self) -> Reply:
        """Answer whether requests should be sent here: the server can accept a write now."""
        return _verdict(self._trouble() or self._disk_trouble())

    def serving(self) -> Reply:
        """As `ready`, but answer 404 while the server shuts down gracefully.

        For load balancers that cut the connections of a node that is down, but not of a node in maintenance.
        """
        if draining(self._metrics):
            return 404, PLAIN, b"the server was told to stop, and finishes its requests\n"
        return self.ready()

    def _trouble(self) -> str | None:
        """Return why the workers are not ready; None if they are."""
        workers = living(self._metrics, PROMPT_SECONDS)
        if draining(self._metrics):
            return "the server was told to stop"
        if not workers:
            return "no worker has a recent heartbeat"
        if all(slot.value("full") for slot in workers):
            return "no connections are accepted: the limit is reached"
        for gauge, trouble in TROUBLES.items():
            if any(slot.value(gauge) for slot in workers):
                return trouble
        return None

    def _disk_trouble(self) -> str | None:
        """Return why the data directory accepts no writes; None if it does, or there is none."""
        if self._data_dir is None:
            return None
        if not self._reserve.held:
            return "the disk is full, and the reserve is in use"
        try:
            with tempfile.TemporaryFile(dir=self._data_dir, buffering=0) as file:  # unnamed
                file.write(bytes(PROBE_BYTES))
        except OSError as error:
            return f"the data directory accepts no writes: {error.strerror}"
        return None

    def _disk(self) -> DiskState:
        if self._data_dir is None:
            return DiskState()
        try:
            return DiskState(self._reserve.free_bytes, self._reserve.held)
        except CryostoreError:
            return DiskState(None, self._reserve.held)


def _verdict(trouble: str | None) -> Reply:
    return (200, PLAIN, b"ok\n") if trouble is None else (503, PLAIN, f"{trouble}\n".encode())


class _ProbeServer:
    """Serves connections on one event loop, each with a total deadline; blocking answers are made in threads."""

    def __init__(
        self, listener: socket.socket, answers: ServerProbes, request_seconds_max: float, disk_seconds_max: float
    ) -> None:
        self._listener = listener
        self._request_seconds_max = request_seconds_max
        self._disk_seconds_max = disk_seconds_max
        self._live = answers.live
        self._blocking: dict[str, Callable[[], Reply]] = {
            METRICS: answers.metrics,
            READY: answers.ready,
            SERVING: answers.serving,
        }
        self._pools = {path: ThreadPool(THREADS) for path in self._blocking}
        self._waiting = dict.fromkeys(self._blocking, 0)
        self._connections: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._stop = asyncio.Event()
        self._runner = asyncio.Runner()

    def run(self) -> None:
        """Serve until `stop`."""
        with self._runner as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        """End `run`, whatever is under way. May be called from any thread."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._runner.get_loop().call_soon_threadsafe(self._stop.set)

    async def _serve(self) -> None:
        self._listener.settimeout(0)
        accepting = asyncio.create_task(self._accept())
        await self._stop.wait()
        for task in (accepting, *self._connections):
            task.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError:
                await asyncio.sleep(WITHOUT_DESCRIPTORS_SECONDS)  # do not retry at once
                continue
            if len(self._connections) >= CONNECTIONS_MAX:
                next(iter(self._connections)).cancel()  # the oldest connection makes way
            task = loop.create_task(self._serve_connection(connection))
            self._connections[task] = None
            task.add_done_callback(partial(self._ended, connection))

    def _ended(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._connections.pop(task, None)
        connection.close()  # here, since a task may be cancelled before it starts

    async def _serve_connection(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            connection.settimeout(0)
            async with asyncio.timeout(self._request_seconds_max):
                head = bytearray()
                while b"\r\n\r\n" not in head and b"\n\n" not in head:
                    more = await loop.sock_recv(connection, HEAD_BYTES_MAX)
                    head += more
                    if not more or len(head) > HEAD_BYTES_MAX:
                        return
                await loop.sock_sendall(connection, await self._answer(bytes(head)))

    async def _answer(self, head: bytes) -> bytes:
        """Return the whole answer to a request."""
        method, _, rest = head.split(b"\n", 1)[0].partition(b" ")
        if method not in (b"GET", b"HEAD"):
            return _encoded((501, PLAIN, b"GET or HEAD\n"), with_body=True)
        path = rest.split(b" ", 1)[0].partition(b"?")[0].strip().decode("latin-1")
        if path == LIVE:
            reply = self._live()
        elif path in self._blocking:
            reply = await self._blocking_reply(path)
        else:
            reply = 404, PLAIN, b"/metrics, /-/live, /-/ready or /-/serving\n"
        return _encoded(reply, with_body=method == b"GET")

    async def _blocking_reply(self, path: str) -> Reply:
        """Return an answer that needs the disk; busy if the disk takes too long, or too many requests wait for it."""
        if self._waiting[path] >= DISK_REQUESTS_MAX:
            return BUSY
        self._waiting[path] += 1
        answering = asyncio.ensure_future(self._pools[path].run(self._blocking[path]))
        answering.add_done_callback(lambda _: self._waiting.update({path: self._waiting[path] - 1}))
        try:
            async with asyncio.timeout(self._disk_seconds_max):
                return await asyncio.shield(answering)
        except TimeoutError:
            return BUSY


def _encoded(reply: Reply, *, with_body: bool) -> bytes:
    status, kind, body = reply
    head = (
        f"HTTP/1.0 {status} {HTTPStatus(status).phrase}\r\nserver: cryostore\r\ncontent-type: {kind}\r\n"
        f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (body if with_body else b"")


@contextlib.contextmanager
def probes(
    listener: socket.socket,
    answers: ServerProbes,
    *,
    request_seconds_max: float = REQUEST_SECONDS_MAX,
    disk_seconds_max: float = DISK_SECONDS_MAX,
) -> Iterator[None]:
    """Serve the probes while the block runs. `listener` is bound; it is closed at the end."""
    listener.listen(BACKLOG)
    served = _ProbeServer(listener, answers, request_seconds_max, disk_seconds_max)
    thread = threading.Thread(target=served.run, name="probes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        served.stop()
        thread.join(STOP_SECONDS_MAX)
        listener.close()
