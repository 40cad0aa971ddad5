"""The listener for whoever watches a server: `/metrics`, `/-/live`, `/-/ready`, `/-/serving`, on an address of its own.

It needs no signature and gives no data away: numbers only, none of them from what a client sent. It runs in a thread of
the process that was started, beside its workers, and answers when they do not. No client makes another wait: each has
so long in all, and when places run out the oldest connection ends. What looks at the disk is apart from what does not.
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
"""For all of a request and its answer."""
LOOK_SECONDS_MAX = 3.0
END_SECONDS_MAX = 1.0
CONNECTIONS_MAX = 64
LOOKS_MAX = 16
"""How many wait at once for what one path has to look at."""
HEAD_BYTES_MAX = 8192
BACKLOG = 128
THREADS = 2
WITHOUT_DESCRIPTORS_SECONDS = 0.1
PROBE_BYTES = 4096
PLAIN = "text/plain; charset=utf-8"
TROUBLES = {
    "store_away": "the catalog does not answer, or does not go with this server any more",
    "key_away": "the keyring of this server lacks the master key in use, or one that others have: the log says which",
    "blobs_away": "this server cannot use the blob store, and others can: see its clock, credentials and route",
}
"""Why no requests should be sent here, by what a worker shows."""
Reply = tuple[int, str, bytes]
"""Status, type and body."""
BUSY: Reply = (503, PLAIN, b"the disk does not answer, or too many ask\n")


class Watch:
    """What there is to see of one server: its page, and the disk under its data directory, if it has one."""

    def __init__(self, page: SharedMetrics, data_dir: Path | None, *, reserve_bytes: int) -> None:
        self._page = page
        self._data_dir = data_dir
        self._reserve = NO_RESERVE if data_dir is None else DiskReserve(data_dir, reserve_bytes)

    def metrics(self) -> Reply:
        """Status, type and body of `/metrics`."""
        return 200, CONTENT_TYPE, text(self._page, self._disk())

    def live(self) -> Reply:
        """As above: whether a worker's event loop turns. What is not live should be started anew.

        A server that was told to stop is live until it has ended: it finishes what is under way, and its end is sure.
        """
        return _verdict(None if living(self._page) or draining(self._page) else "no worker shows a sign of life")

    def ready(self) -> Reply:
        """As above: whether requests should be sent here, for a write could be taken now."""
        return _verdict(self._trouble() or self._disk_trouble())

    def serving(self) -> Reply:
        """As `ready`, but 404 while the server was told to stop and goes on with what is under way.

        For load balancers that cut the connections of a node that is down, and not of one that leaves.
        """
        if draining(self._page):
            return 404, PLAIN, b"the server was told to stop, and serves what it has\n"
        return self.ready()

    def _trouble(self) -> str | None:
        """Why no requests should be sent here, as far as the workers tell."""
        workers = living(self._page, PROMPT_SECONDS)
        if draining(self._page):
            return "the server was told to stop"
        if not workers:
            return "no worker shows a sign of life"
        if all(slot.value("full") for slot in workers):
            return "no connections are taken: all places are in use"
        for gauge, trouble in TROUBLES.items():
            if any(slot.value(gauge) for slot in workers):
                return trouble
        return None

    def _disk_trouble(self) -> str | None:
        """Why the data directory takes no writes; None if it does, or there is none."""
        if self._data_dir is None:
            return None
        if not self._reserve.held:
            return "the disk is full, and the reserve in use"
        try:
            with tempfile.TemporaryFile(dir=self._data_dir, buffering=0) as file:  # it never gets a name
                file.write(bytes(PROBE_BYTES))
        except OSError as error:
            return f"the data directory takes no writes: {error.strerror}"
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


class _Listener:
    """Connections on one event loop, each with a total deadline; answers that may block, in threads."""

    def __init__(self, listener: socket.socket, watch: Watch) -> None:
        self._listener = listener
        self._live = watch.live
        self._blocking: dict[str, Callable[[], Reply]] = {
            METRICS: watch.metrics,
            READY: watch.ready,
            SERVING: watch.serving,
        }
        self._pools = {path: ThreadPool(THREADS) for path in self._blocking}
        self._asked = dict.fromkeys(self._blocking, 0)
        self._connections: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._stop = asyncio.Event()
        self._runner = asyncio.Runner()

    def run(self) -> None:
        """Answer until `stop`."""
        with self._runner as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        """End `run`, whatever is under way. From any thread."""
        with contextlib.suppress(RuntimeError):  # it has ended
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
                await asyncio.sleep(WITHOUT_DESCRIPTORS_SECONDS)  # rather than ask again at once
                continue
            if len(self._connections) >= CONNECTIONS_MAX:
                next(iter(self._connections)).cancel()  # who has had the most time makes way
            task = loop.create_task(self._converse(connection))
            self._connections[task] = None
            task.add_done_callback(partial(self._ended, connection))

    def _ended(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._connections.pop(task, None)
        connection.close()  # here, for a task may be cancelled before it begins

    async def _converse(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            connection.settimeout(0)
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                head = bytearray()
                while b"\r\n\r\n" not in head and b"\n\n" not in head:
                    more = await loop.sock_recv(connection, HEAD_BYTES_MAX)
                    head += more
                    if not more or len(head) > HEAD_BYTES_MAX:
                        return
                await loop.sock_sendall(connection, await self._answered(bytes(head)))

    async def _answered(self, head: bytes) -> bytes:
        """The answer to a request, whole."""
        method, _, rest = head.split(b"\n", 1)[0].partition(b" ")
        if method not in (b"GET", b"HEAD"):
            return _written((501, PLAIN, b"GET or HEAD\n"), with_body=True)
        path = rest.split(b" ", 1)[0].partition(b"?")[0].strip().decode("latin-1")
        if path == LIVE:
            reply = self._live()
        elif path in self._blocking:
            reply = await self._looked(path)
        else:
            reply = 404, PLAIN, b"/metrics, /-/live, /-/ready or /-/serving\n"
        return _written(reply, with_body=method == b"GET")

    async def _looked(self, path: str) -> Reply:
        """What there is to say after a look at the disk, which may not come back: refused then, and after a while."""
        if self._asked[path] >= LOOKS_MAX:
            return BUSY
        self._asked[path] += 1
        looking = asyncio.ensure_future(self._pools[path].run(self._blocking[path]))
        looking.add_done_callback(lambda _: self._asked.update({path: self._asked[path] - 1}))
        try:
            async with asyncio.timeout(LOOK_SECONDS_MAX):
                return await asyncio.shield(looking)
        except TimeoutError:
            return BUSY


def _written(reply: Reply, *, with_body: bool) -> bytes:
    status, kind, body = reply
    head = (
        f"HTTP/1.0 {status} {HTTPStatus(status).phrase}\r\nserver: cryostore\r\ncontent-type: {kind}\r\n"
        f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (body if with_body else b"")


@contextlib.contextmanager
def probes(listener: socket.socket, watch: Watch) -> Iterator[None]:
    """Answer on `listener`, which is bound and becomes this function's to close, while the block runs."""
    listener.listen(BACKLOG)
    served = _Listener(listener, watch)
    thread = threading.Thread(target=served.run, name="probes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        served.stop()
        thread.join(END_SECONDS_MAX)
        listener.close()
