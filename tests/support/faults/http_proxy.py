"""A proxy between an HTTP client and a real service, with faults of networks and services on demand."""

from __future__ import annotations

import http.client
import threading
from contextlib import contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>"
ELSEWHERE = b"<?xml version='1.0'?><Error><Code>PermanentRedirect</Code><Message>Not here.</Message></Error>"
NOT_HERE = b"<html><body>404: nothing is served here</body></html>"


class Fault(Enum):
    """The fault of a request and its response."""

    CUT_BEFORE = "the connection ends before the request arrives"
    CUT_AFTER = "the request arrives, and the connection ends before the answer"
    TORN = "the request arrives, and the connection ends within the answer"
    THROTTLED = "the service answers 503 SlowDown and does nothing"
    THROTTLED_AFTER = "the service does it, and answers 503 SlowDown"
    SILENT_BEFORE = "the request gets lost, and the connection stays"
    SILENT_AFTER = "the request arrives, the answer gets lost, and the connection stays"
    SHORTENED = "the answer has half its bytes, and says so"
    ELSEWHERE = "the service answers 301: the bucket is in another region"
    NOT_HERE = "something that is not the service answers 404"


ARRIVING = {Fault.CUT_AFTER, Fault.TORN, Fault.THROTTLED_AFTER, Fault.SILENT_AFTER, Fault.SHORTENED}


def kind_of(method, target):
    """Return the blob store method that an S3 request belongs to."""
    if method == "GET":
        return "list" if "list-type" in target else "get"
    return {"PUT": "put", "HEAD": "stat", "DELETE": "delete"}.get(method, method)


class HttpProxy:
    """Passes requests on to `address`, except for the set faults. A context manager."""

    def __init__(self, address):
        self.target = urlsplit(address).netloc
        self.faults = {}
        self.requests = {}
        """By kind: the change of a request's body."""
        self.answers = {}
        """By kind: the change of a response's body."""
        self.head = lambda _name, value: value
        """The change of a request header's value."""
        self.seen = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            def __init__(self, *arguments):
                self.proxy = proxy
                super().__init__(*arguments)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_error):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def fail(self, kind, fault, times=1):
        """Make the next requests of a kind ("put", "get", "stat", "list", "delete") fail."""
        with self._lock:
            self.faults[kind] = [fault] * times

    @contextmanager
    def failing(self, kind, fault):
        """Make every request of a kind fail while the context lasts."""
        self.fail(kind, fault, 10_000)
        yield
        self.fail(kind, fault, 0)

    def next_fault(self, kind):
        """Count a request; return its fault, or None."""
        with self._lock:
            self.seen.append(kind)
            faults = self.faults.get(kind)
            return faults.pop() if faults else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: HttpProxy

    def log_message(self, *_arguments):
        """Log nothing."""

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except OSError:  # the client has disconnected
            self.close_connection = True

    def pass_on(self):
        """Pass one request on, or apply its fault."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.kind = kind_of(self.command, self.path)
        body = self.proxy.requests.get(self.kind, bytes)(body)
        fault = self.proxy.next_fault(self.kind)
        if fault is Fault.THROTTLED:
            self.answer(503, {}, SLOW_DOWN)
        elif fault is Fault.ELSEWHERE:
            self.answer(301, {}, ELSEWHERE)
        elif fault is Fault.NOT_HERE:
            self.answer(404, {}, NOT_HERE)
        elif fault is not None and fault not in ARRIVING:
            self.lose(fault)
        else:
            self.answer_with(fault, *self.ask(body))

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = pass_on  # noqa: N815 - the names http.server looks for

    def ask(self, body):
        """Return the service's response: status, headers and bytes."""
        connection = http.client.HTTPConnection(self.proxy.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, self.proxy.head(name, value))
            connection.endheaders(body)
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in DROPPED}
            size = answer.getheader("content-length") if self.command == "HEAD" else None
            return answer.status, headers, answer.read(), size
        finally:
            connection.close()

    def answer_with(self, fault, status, headers, body, size):
        """Pass the response on, changed by the fault, if any."""
        if fault is None:
            self.answer(status, headers, self.proxy.answers.get(self.kind, bytes)(body), size)
        elif fault is Fault.THROTTLED_AFTER:
            self.answer(503, {}, SLOW_DOWN)
        elif fault is Fault.SHORTENED:
            self.answer(status, headers, body[: len(body) // 2], size)
        elif fault is Fault.TORN:
            self.answer(status, headers, body[: len(body) // 2], size or str(len(body) + 1))
            self.close_connection = True
        else:
            self.lose(fault)

    def answer(self, status, headers, body, size=None):
        """Send a response, with its real length or another one."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", size or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def lose(self, fault):
        """Close the connection without a response, or leave it open without one."""
        self.close_connection = True
        if fault in {Fault.SILENT_BEFORE, Fault.SILENT_AFTER}:
            self.proxy.closing.wait(60)


DROPPED = {"content-length", "transfer-encoding", "connection", "keep-alive"}
