"""A TCP proxy that closes, holds or delays its connections on demand, in either direction."""

from __future__ import annotations

import contextlib
import socket
import threading

PIECE_BYTES = 1 << 16


class TcpProxy:
    """Passes connections on to `host:port`; listens on `port` of loopback. A context manager.

    `on_request` and `on_answer` are asked about each piece of bytes, with the number of its connection, before it is
    passed on: they may change it, raise `CutError` to cut the connection there (both sides see it end), or wait.
    """

    def __init__(self, host, port, *, on_request=None, on_answer=None):
        self._to = (host, int(port))
        self.on_request = on_request or (lambda _connection, piece: piece)
        self.on_answer = on_answer or (lambda _connection, piece: piece)
        self.connections = 0
        self.refuses = False
        self._open = []
        self._threads = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._going = threading.Event()
        self._going.set()

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.go_on()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self):
        """Close all current connections."""
        with self._lock:
            for pair in self._open:
                _close(*pair)
            self._open.clear()

    def cut_clients(self):
        """Close all connections to clients, but not those to the server."""
        with self._lock:
            for client, _ in self._open:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def hold(self):
        """Pass nothing on in either direction and close nothing, like a pulled cable."""
        self._going.clear()

    def go_on(self):
        """Pass data on again, starting with the held data."""
        self._going.set()

    def dial(self):
        """Return a connection to the server. Raises OSError."""
        return socket.create_connection(self._to)

    def _start(self, action, *arguments):
        thread = threading.Thread(target=action, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refuses:
                    _close(client)
                    continue
                self._connect(client)

    def _connect(self, client):
        try:
            server = self.dial()
        except OSError:
            _close(client)
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        with self._lock:
            self._open.append((client, server))
        self._start(self._pass_on, self.connections, client, server, "on_request")
        self._start(self._pass_on, self.connections, server, client, "on_answer")

    def _pass_on(self, number, source, sink, look):
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                self._going.wait()
                try:
                    sink.sendall(getattr(self, look)(number, piece))
                except CutError as cut:
                    sink.sendall(cut.last)
                    break
        _close(source, sink)


class CutError(Exception):
    """Raised by `on_request` or `on_answer` to close the connection. The bytes `last` are still passed on."""

    def __init__(self, last=b""):
        super().__init__()
        self.last = last


def _close(*ends):
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
