"""The listener for whoever watches a server: `/metrics`, `/-/live`, `/-/ready`, `/-/serving`, on an address of its own.

It needs no signature and gives no data away: numbers only, none of them from what a client sent. It runs in threads of
the process that was started, beside its workers, and answers when they do not.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any

from cryostore.chunks.reserve import NO_RESERVE, Reserve
from cryostore.core.errors import CryostoreError
from cryostore.server.exposition import CONTENT_TYPE, DiskState, draining, living, text
from cryostore.server.metrics import Page

REQUEST_SECONDS_MAX = 5.0
CONNECTIONS_MAX = 16
WITHOUT_DESCRIPTORS_SECONDS = 0.1
PROBE_BYTES = 4096
PLAIN = "text/plain; charset=utf-8"


class Watch:
    """What there is to see of one server: its page, and the disk under its data directory, if it has one."""

    def __init__(self, page: Page, data_dir: Path | None, *, reserve_bytes: int) -> None:
        self._page = page
        self._data_dir = data_dir
        self._reserve = NO_RESERVE if data_dir is None else Reserve(data_dir, reserve_bytes)

    def metrics(self) -> tuple[int, str, bytes]:
        """Status, type and body of `/metrics`."""
        return 200, CONTENT_TYPE, text(self._page, self._disk())

    def live(self) -> tuple[int, str, bytes]:
        """As above: whether a worker's event loop turns. What is not live should be started anew.

        A server that was told to stop is live until it has ended: it finishes what is under way, and its end is sure.
        """
        return _verdict(None if living(self._page) or draining(self._page) else "no worker shows a sign of life")

    def ready(self) -> tuple[int, str, bytes]:
        """As above: whether requests should be sent here, for a write could be taken now."""
        return _verdict(self._trouble() or self._disk_trouble())

    def serving(self) -> tuple[int, str, bytes]:
        """As `ready`, but 404 while the server was told to stop and goes on with what is under way.

        For load balancers that cut the connections of a node that is down, and not of one that leaves.
        """
        if draining(self._page):
            return 404, PLAIN, b"the server was told to stop, and serves what it has\n"
        return self.ready()

    def _trouble(self) -> str | None:
        """Why no requests should be sent here, as far as the workers tell."""
        workers = living(self._page)
        if draining(self._page):
            return "the server was told to stop"
        if not workers:
            return "no worker shows a sign of life"
        if any(slot.value("store_away") for slot in workers):
            return "the catalog does not answer, or does not go with this server any more"
        if any(slot.value("key_away") for slot in workers):
            return "the keyring of this server lacks the master key in use: the log says which"
        if any(slot.value("blobs_away") for slot in workers):
            return "this server cannot use the blob store, and others can: see its clock, credentials and route"
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


def _verdict(trouble: str | None) -> tuple[int, str, bytes]:
    return (200, PLAIN, b"ok\n") if trouble is None else (503, PLAIN, f"{trouble}\n".encode())


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    timeout = REQUEST_SECONDS_MAX
    server: _Server

    def do_GET(self) -> None:
        """Answer one request."""
        answer = self.server.answers.get(self.path.partition("?")[0])
        status, kind, body = answer() if answer else (404, PLAIN, b"/metrics, /-/live, /-/ready or /-/serving\n")
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("cache-control", "no-store")
        self.send_header("connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - as above

    def version_string(self) -> str:
        """Say no more of us than that."""
        return "cryostore"

    def log_message(self, *_: Any) -> None:
        """Say nothing: who watches asks all the time."""


class _Server(ThreadingMixIn, HTTPServer):
    """Connections in threads, so many at a time."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, watch: Watch) -> None:
        HTTPServer.__init__(self, ("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.answers: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": watch.metrics,
            "/-/live": watch.live,
            "/-/ready": watch.ready,
            "/-/serving": watch.serving,
        }
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self.server_activate()

    def get_request(self) -> tuple[Any, Any]:
        """Take a connection; without a descriptor for it, wait a little rather than ask again at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(WITHOUT_DESCRIPTORS_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread for a connection, once there is a place for it."""
        self._places.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """See ThreadingMixIn."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, *_: Any) -> None:
        """A connection that broke concerns nobody."""


@contextlib.contextmanager
def probes(listener: socket.socket, watch: Watch) -> Iterator[None]:
    """Answer on `listener`, which is bound and becomes this function's to close, while the block runs."""
    server = _Server(listener, watch)
    thread = threading.Thread(target=server.serve_forever, name="probes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
