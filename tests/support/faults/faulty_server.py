"""A real HTTP server on loopback that follows a script of faults: one step per request, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Step = Callable[["Handler"], None]


class FaultyServer(ThreadingHTTPServer):
    """Keeps the received requests. `released` ends all waiting steps."""

    daemon_threads = True
    block_on_close = True

    def __init__(self, *steps: Step) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.steps = list(steps)
        self.received: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self.released = threading.Event()
        self.closed = threading.Semaphore(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.closed.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: clients may disconnect."""


class Handler(BaseHTTPRequestHandler):
    """Runs the next step for each request."""

    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def play(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append((self.command, self.path, headers, body))
        self.server.steps.pop(0)(self)

    do_GET = do_PUT = do_POST = do_DELETE = play  # noqa: N815 - the names http.server calls

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def faulty_server(*steps: Step) -> Iterator[FaultyServer]:
    """A server that runs `steps`, and checks at its end that all have run."""
    server = FaultyServer(*steps)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert server.steps == []


def answer(
    status: int = 200, body: bytes = b"{}", *, keep: bool = True, say_close: bool = False, **headers: str
) -> Step:
    """Respond correctly. `keep=False` closes the connection afterwards without announcing it."""

    def step(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", str(len(body)))
        if say_close:
            handler.send_header("connection", "close")
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = not keep or say_close

    return step


def fail(status: int, name: str, message: str = "as scripted", **headers: str) -> Step:
    """Respond with an error of the API."""
    body = f'{{"__type":"{name}","Code":"{name}","Message":"{message}","message":"{message}"}}'.encode()
    return answer(status, body, x_amzn_ErrorType=name, x_amzn_RequestId="REQUEST-1", **headers)


def cut(handler: Handler) -> None:
    """Close the connection without a response."""
    handler.close_connection = True


def cut_in_body(handler: Handler) -> None:
    """Announce 100 bytes, send 10, and close."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123456789")
    handler.close_connection = True


def garbage(handler: Handler) -> None:
    """Speak another protocol."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    handler.close_connection = True


def stall(handler: Handler) -> None:
    """Send half of a head, and then nothing until the end of the test."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-le")
    handler.server.released.wait()
    handler.close_connection = True
