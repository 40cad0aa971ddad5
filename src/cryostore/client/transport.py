"""Transport of requests: the interface, the address of a server, and HTTP over TCP and TLS with pooled connections.

Rules of this file:
- A connection carries one request at a time, and returns to the pool only after its answer was read to the end.
- A pooled connection that turns out to be closed is replaced once, silently: servers close idle ones at any moment.
- Every failure is raised as ConnectionFailedError.
- A forked child never uses the connections of its parent.
- The size of an answer, headers included, and the total time to read it are limited.
- After `cut_off`, nothing waits long and nothing is sent twice.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import socket
import ssl
import time
import weakref
from collections import deque
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from cryostore.core.digest import Payload
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.core.limits import MIB
from cryostore.wire.message import Request, Response

PORTS = {"http": 80, "https": 443}


class ConnectionFailedError(CryostoreError):
    """A request without an answer: no connection, a broken one, a time-out, or an answer that is not HTTP.

    It is unknown whether the server executed the request. `retryable` is False if a repetition cannot help, for example
    with a certificate that is not trusted.
    """

    def __init__(self, message: str, *, hint: str = "", retryable: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable


class Transport(Protocol):
    """Sends signed requests to a server and returns its answers."""

    def send(self, request: Request) -> Response:
        """Return the answer, whatever its status. Thread safe. Raises only ConnectionFailedError."""
        ...

    def close(self) -> None:
        """Close idle connections. A later `send` opens new ones."""
        ...

    def cut_off(self, seconds: float) -> None:
        """Abort all requests in flight. Each step of a later request waits at most `seconds`."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a server: only scheme, host and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Parse `http://host[:port]` or `https://host[:port]`.

        Raises ConfigurationError for anything else. A path is refused because it would be part of the signature.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _not_an_endpoint() from None
        if parts.scheme not in PORTS or not parts.hostname or parts.username is not None or parts.password is not None:
            raise _not_an_endpoint()
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise _not_an_endpoint()
        return cls(parts.scheme, parts.hostname, PORTS[parts.scheme] if port is None else port)

    @property
    def authority(self) -> str:
        """The Host header as SDKs write it: with a port only if it is not the default of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def _not_an_endpoint() -> ConfigurationError:
    # Does not repeat the text: it may contain a password.
    return ConfigurationError(
        "the endpoint URL is not of the form http://host:port", hint="give scheme, host and port only, without a path"
    )


CONNECTIONS_IDLE_MAX = 64
ENVELOPE_BYTES_MAX = 4 * MIB
"""Maximum size of an answer beside its body: status lines, headers, chunk sizes, trailers."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time-outs for a connection, for the next bytes on it, and for a whole answer."""

    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    answer_seconds: float = 900.0


class _EndlessAnswerError(HTTPException):
    """An answer is larger than the request allows, or takes longer."""


class _LimitedStream(io.RawIOBase):
    """Raw stream of one answer, limited in bytes and time."""

    def __init__(self, connected: socket.socket, timeouts: Timeouts, bytes_max: int) -> None:
        self._socket = connected
        self._raw = connected.makefile("rb", buffering=0)  # keeps the socket open until the stream is closed
        self._timeouts = timeouts
        self._bytes_max = self._bytes_left = bytes_max
        self._ends = time.monotonic() + timeouts.answer_seconds

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """Read the bytes that have arrived. Raises _EndlessAnswerError, and OSError as a socket does."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise _EndlessAnswerError(f"an answer was not complete after {self._timeouts.answer_seconds:g} seconds")
        self._socket.settimeout(min(left, self._timeouts.read_seconds))
        count = self._raw.readinto(buffer)
        self._bytes_left -= count or 0
        if self._bytes_left < 0:
            raise _EndlessAnswerError(f"an answer of over {self._bytes_max} bytes is too long")
        return count

    def close(self) -> None:
        """Release the socket."""
        self._raw.close()
        super().close()


class _LimitedSocket:
    """The part of a socket that HTTPResponse uses, with a limited stream."""

    def __init__(self, connected: socket.socket, timeouts: Timeouts, bytes_max: int) -> None:
        self._file = io.BufferedReader(_LimitedStream(connected, timeouts, bytes_max))

    def makefile(self, mode: str) -> io.BufferedReader[Any]:  # noqa: ARG002 - as a socket has it
        """Return the stream of the answer."""
        return self._file


class HttpTransport:
    """A Transport to one endpoint, for any number of threads; each concurrent request has its own connection."""

    def __init__(self, endpoint: Endpoint, *, timeouts: Timeouts | None = None, ca_bundle: str | None = None) -> None:
        """`ca_bundle` is a file or folder of certificates to trust instead of the system's."""
        self.endpoint = endpoint
        self.timeouts = timeouts or Timeouts()
        self._tls = trust(ca_bundle) if endpoint.scheme == "https" else None
        self._idle: deque[HTTPConnection] = deque()
        self._busy: set[HTTPConnection] = set()
        self._is_cut_off = False
        self._process_id = os.getpid()
        weakref.finalize(self, _close_all, self._idle)

    def send(self, request: Request) -> Response:
        """See `Transport.send`."""
        try:
            kept = self._take()
            if kept is not None:
                try:
                    return self._exchange(kept, request)
                except ConnectionError:
                    if self._is_cut_off:
                        raise
                    # most likely closed while idle: retry on a new connection
            return self._exchange(self._connect(), request)
        except ssl.SSLCertVerificationError as error:
            raise ConnectionFailedError(
                f"{self.endpoint}: {error.verify_message}",
                hint="give the file of the certificate authority to trust (ca_bundle or AWS_CA_BUNDLE)",
                retryable=False,
            ) from error
        except _EndlessAnswerError as error:
            raise ConnectionFailedError(
                f"{self.endpoint}: {error}", hint="is this the address of a Cryostore server?", retryable=False
            ) from error
        except TimeoutError as error:
            raise ConnectionFailedError(f"{self.endpoint}: timed out waiting for an answer") from error
        except (OSError, HTTPException) as error:
            raise ConnectionFailedError(
                f"{self.endpoint}: {str(error) or type(error).__name__}",
                hint="is the server running, and is this its address?",
            ) from error

    def close(self) -> None:
        """See `Transport.close`."""
        _close_all(self._idle)

    def cut_off(self, seconds: float) -> None:
        """See `Transport.cut_off`."""
        self.timeouts = Timeouts(seconds, seconds, seconds)
        self._is_cut_off = True
        for connection in list(self._busy):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                # The method of the plain socket, for TLS as well: it sends no close notification.
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def _take(self) -> HTTPConnection | None:
        """Return a pooled connection that is still open as far as this side knows."""
        if self._process_id != os.getpid():
            _close_all(self._idle)  # only the copies of this process: the connections of the parent stay open
            self._process_id = os.getpid()
        while True:
            try:
                connection = self._idle.pop()  # the most recently used one is the least likely to be closed
            except IndexError:
                return None
            if not _is_readable(connection.sock):
                return connection
            connection.close()  # no answer is outstanding, so readable means closed

    def _connect(self) -> HTTPConnection:
        host, port, seconds = self.endpoint.host, self.endpoint.port, self.timeouts.connect_seconds
        if self._tls is None:
            connection = HTTPConnection(host, port, timeout=seconds)
        else:
            connection = HTTPSConnection(host, port, timeout=seconds, context=self._tls)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    def _exchange(self, connection: HTTPConnection, request: Request) -> Response:
        self._busy.add(connection)
        try:
            connection.sock.settimeout(self.timeouts.read_seconds)
            # A server may answer and close before it has read the whole body: the answer counts.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                _send_request(connection, request)
            connection.response_class = partial(_limited_response, self.timeouts, request.answer_bytes_max)  # type: ignore[assignment]
            with connection.getresponse() as answer:  # which owns the socket if the server closes it
                body = _read_body(answer, request.answer_bytes_max)
        except BaseException:
            connection.close()
            raise
        finally:
            self._busy.discard(connection)
        if answer.will_close or len(self._idle) >= CONNECTIONS_IDLE_MAX:
            connection.close()
        else:
            self._idle.append(connection)
        headers = [(name.lower(), value) for name, value in answer.getheaders()]
        return Response(answer.status, headers, Payload(body))


def _limited_response(timeouts: Timeouts, bytes_max: int, connected: socket.socket, method: str) -> HTTPResponse:
    """Return the reader of an answer with its limits."""
    limited = _LimitedSocket(connected, timeouts, bytes_max + ENVELOPE_BYTES_MAX)
    return HTTPResponse(cast("socket.socket", limited), method=method)


def trust(ca_bundle: str | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities of the system, or only those of `ca_bundle`."""
    if ca_bundle is None:
        return ssl.create_default_context()
    path = Path(ca_bundle)
    try:
        return ssl.create_default_context(
            cafile=None if path.is_dir() else path, capath=path if path.is_dir() else None
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot read the certificate bundle {ca_bundle}: {error}") from error


def _send_request(connection: HTTPConnection, request: Request) -> None:
    target = f"{request.path}?{request.query}" if request.query else request.path
    connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in request.headers:
        connection.putheader(name, value)
    body = request.body
    if body or request.method not in ("GET", "DELETE"):
        connection.putheader("content-length", str(len(body or b"")))
    connection.endheaders(body.data if body else None)


def _read_body(answer: HTTPResponse, bytes_max: int) -> bytes:
    """Return the body of an answer. Raises _EndlessAnswerError if it is longer than `bytes_max`."""
    if answer.length is not None and answer.length <= bytes_max:
        return answer.read()
    body = b"" if answer.length is not None else answer.read(bytes_max + 1)
    if answer.length is not None or len(body) > bytes_max:
        raise _EndlessAnswerError(f"an answer of {answer.length or f'over {bytes_max}'} bytes is too long")
    return body


def _is_readable(open_socket: socket.socket) -> bool:
    poller = select.poll()
    poller.register(open_socket, select.POLLIN)
    return bool(poller.poll(0))


def _close_all(idle: deque[HTTPConnection]) -> None:
    while idle:
        idle.pop().close()
