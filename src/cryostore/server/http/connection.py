"""A client connection: parses requests and answers them one at a time, in order. An asyncio protocol for uvicorn.

The rules of this file:

- Everything has a limit: the head of a request in bytes and in seconds, idle time between requests, an answer that the
  client does not read, an unread body after an early answer, the number of connections.
- While one request is answered, later ones wait: unread, or parsed only as far as they came with it.
- After the last answer a connection lingers until the client has had time to read it: if it were closed while bytes
  still come in, the client's system would discard the answer.
- A long body bypasses the parser: the socket is read straight into it (`Exchange.direct`). All other bytes come through
  one buffer of the event loop, `INTAKE_BYTES` long, which is empty again before the loop does anything else.
- The parser is httptools, strict with one exception: bytes beyond ASCII in a path, as AWS.jl sends them (Backup Storage
  A.5), pass it in escaped form (`wire.julia`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn.config import Config

from cryostore.core.ids import NewId
from cryostore.model.errors import IllegalArgumentException, ModelError, ServiceUnavailableException
from cryostore.options.configuration import ConnectionSettings
from cryostore.server.http.exchange import STATUS_LINES, Application, Exchange, Scope, SlowReaderWatch
from cryostore.server.http.shared_state import SharedState
from cryostore.wire import error as wire_error
from cryostore.wire.julia import escape_line, restore_url

INTAKE_BYTES = 64 * 1024
LAST_LINGER_SECONDS = 5.0
"""How long a connection may still linger once the server stops."""
REQUEST_LINE_REST = len(b"  HTTP/1.1\r\n") + len(b"\r\n")


class HeadRefusedError(Exception):
    """The head of a request breaks a limit of this file."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Connection(asyncio.BufferedProtocol):
    """A connection. uvicorn creates it with `config` and the later arguments; the earlier ones are bound beforehand.

    `intake` is the buffer for incoming bytes: `INTAKE_BYTES` long, shared by all connections of one event loop.
    """

    _transport: asyncio.Transport

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        head_bytes_max: int,
        new_id: NewId,
        intake: memoryview,
        config: Config,
        server_state: SharedState,
        app_state: dict[str, Any],  # noqa: ARG002 - uvicorn gives it to every protocol
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.settings = settings
        self.loop = _loop or asyncio.get_event_loop()
        self.closing = False
        """No further request is started."""
        self._head_bytes_max = head_bytes_max
        self._new_id = new_id
        self._intake = intake
        self._application: Application = config.loaded_app
        self._server_state = server_state
        self._parser: Any = self._new_parser()
        self._scheme = "http"
        self._client: Any = None
        self._server: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._slow_reader = SlowReaderWatch(self.loop, settings.write_idle_seconds_max)
        self._active: Exchange | None = None  # the one being answered
        self._incoming: Exchange | None = None  # the one being received: the active one, or the last in line
        self._line: deque[Exchange] = deque()
        self._reading = True
        self._stopped_parsing = False  # no request after the one being received is parsed
        self._lingering_bytes: int | None = None
        self._peer_ended = False
        self._in_head = False
        self._in_request_line = False
        self._heads = 0
        self._head_bytes = 0
        self._framing_bytes = 0  # bytes of chunked framing since the last byte of the body
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._declared_bytes: int | None = 0
        self._expects_continue = False

    # --- for the event loop ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to serve, or refuse the connection if too many are open."""
        transport = cast("asyncio.Transport", transport)  # uvloop's transport has its methods, not its class
        self._transport = transport
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self._client = transport.get_extra_info("peername")
        self._server = transport.get_extra_info("sockname")
        state, now = self._server_state, self.loop.time()
        state.connections.add(self)  # type: ignore[arg-type] # it is declared for uvicorn's own class
        full = len(state.connections) > self.settings.connections_max
        if full and not state.unproven.make_room(now):
            self._refuse(503, ServiceUnavailableException("too many connections are open; retry later"))
        else:
            state.unproven.add(self, now)
            self._set_timer(self.settings.head_seconds_max, self.close)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - every reason is treated alike
        """Release everything; an exchange under way sees its body broken off."""
        self._server_state.connections.discard(self)
        self._server_state.unproven.discard(self)
        self.closing = True
        for exchange in (self._active, *self._line):
            if exchange is not None and not exchange.body_complete:
                exchange.break_off()
        self._line.clear()
        self._cancel_timer()
        self._slow_reader.stop()
        self._parser = None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - a hint that is not needed
        """Return the buffer for the next bytes: the body that takes them directly, else the intake."""
        incoming = self._incoming
        if incoming is None or not incoming.direct:
            return self._intake
        return incoming.room() or self._intake[: incoming.missing_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        """Process bytes that were read into the buffer of `get_buffer`."""
        incoming = self._incoming
        if incoming is None or not incoming.direct:
            self._parse(bytes(self._intake[:nbytes]))
        elif self._lingering_bytes is not None:
            self._discard(nbytes)
        else:
            incoming.take(nbytes)
            if not incoming.missing_bytes:
                incoming.direct = False
                self._parser = self._new_parser()  # the old one still expects the body
                self.on_message_complete()

    def eof_received(self) -> bool:
        """The client sends nothing more; it may still read the answers it asked for."""
        self._peer_ended = True
        if self._active is None:
            return False
        if self._incoming is not None and not self._incoming.body_complete:
            self._incoming.break_off()
        return True

    def pause_writing(self) -> None:
        """The client reads more slowly than the server writes: watch that it reads at all."""
        self._slow_reader.start(self._transport, self.abort)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._slow_reader.stop()

    def shutdown(self) -> None:
        """Called by uvicorn when the server stops: finish the exchange under way, start no other."""
        self.closing = self._stopped_parsing = True
        self._line.clear()
        if self._lingering_bytes is not None:
            self._set_timer(min(LAST_LINGER_SECONDS, self.settings.drain_seconds_max), self.close)
        elif self._active is None:
            self.close()

    # --- for the parser -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start to parse a request."""
        self._in_head = True
        self._heads += 1
        self._head_bytes = self._framing_bytes = 0
        self._url = b""
        self._headers = []
        self._declared_bytes = 0
        self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        """Add a piece of the URL in the request line."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; the trailers of a chunked body are ignored."""
        if not self._in_head:
            return
        name = name.lower()
        self._headers.append((name, value))
        if name == b"content-length":
            self._declared_bytes = int(value)
        elif name == b"transfer-encoding":
            self._declared_bytes = None
        elif name == b"expect":
            self._expects_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """Start the exchange of a complete head, or put it in line."""
        self._in_head = False
        parser = self._parser
        method = parser.get_method()
        head_bytes = len(method) + len(self._url) + REQUEST_LINE_REST
        head_bytes += sum(len(name) + len(value) + 4 for name, value in self._headers)
        if head_bytes > self._head_bytes_max:
            raise HeadRefusedError(431, f"the request head is longer than {self._head_bytes_max} bytes")
        upgrade = parser.should_upgrade()
        if upgrade and (self._declared_bytes != 0 or method == b"CONNECT"):
            raise HeadRefusedError(400, "a request with a body cannot ask for another protocol")
        if (version := parser.get_http_version()) not in ("1.1", "1.0"):
            raise HeadRefusedError(400, "the server speaks HTTP/1.1 only")
        exchange = Exchange(
            self,
            self._scope(method, version),
            declared_bytes=self._declared_bytes,
            expects_continue=self._expects_continue and version == "1.1",
            keep_alive=version == "1.1" and not upgrade and parser.should_keep_alive(),
        )
        self._incoming = exchange
        if self._active is None:
            self._start(exchange)
        else:
            self.pause_reading()
            self._line.append(exchange)
        if not exchange.keep_alive:
            self._stopped_parsing = True

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body to its exchange."""
        if self._incoming is not None:
            self._incoming.feed(data)

    def on_message_complete(self) -> None:
        """Complete the exchange of the request."""
        exchange = self._incoming
        if exchange is None:
            return
        exchange.complete()
        if exchange is not self._active and not self._line and not self.closing:
            self._set_timer(self.settings.keep_alive_seconds_max, self.close)

    # --- for the exchange -----------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See ClientConnection."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def written(self) -> None:
        """See ClientConnection."""
        await self._slow_reader.wait()

    def finish(self, exchange: Exchange, *, keep_alive: bool) -> None:
        """See ClientConnection."""
        self._server_state.total_requests += 1
        self._active = None
        if self._transport.is_closing():
            return
        if not keep_alive:
            self._linger(exchange)
        elif self._line:
            self._start(self._line.popleft())
        elif self._peer_ended:
            self.close()
        else:
            self.resume_reading()
            drained = exchange.body_complete
            self._set_timer(
                self.settings.keep_alive_seconds_max if drained else self.settings.drain_seconds_max, self.close
            )

    @property
    def is_answering(self) -> bool:
        """Whether an exchange is under way."""
        return self._active is not None

    @property
    def goes_on(self) -> bool:
        """See ClientConnection."""
        return not self.closing and (bool(self._line) or not self._server_state.draining)

    def default_lines(self) -> list[bytes]:
        """See ClientConnection."""
        return [b"%s: %s\r\n" % header for header in self._server_state.default_headers]

    def pause_reading(self) -> None:
        """See ClientConnection. The next bytes stay with the client's system."""
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See ClientConnection. While requests wait in line, nothing more is read."""
        if not self._reading and not self._line and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def close(self) -> None:
        """Close the connection once everything written is sent, or at once if that takes too long."""
        self.closing = True
        self._cancel_timer()
        if not self._transport.is_closing():
            if self._transport.get_write_buffer_size():
                self._timer = self.loop.call_later(self.settings.write_idle_seconds_max, self.abort)
            self._transport.close()

    def abort(self) -> None:
        """See ClientConnection."""
        self.closing = True
        self._cancel_timer()
        self._transport.abort()

    def _mark_proven(self) -> None:
        self._server_state.unproven.discard(self)

    # --- internal -------------------------------------------------------------------------------------------------

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(
            lenient_data_after_close=True
        )  # such data is ignored; it would cause a second answer
        return parser

    def _parse(self, data: bytes) -> None:
        if self._stopped_parsing and not self._is_receiving():
            self._discard(len(data))
            return
        if self._in_request_line or not (self._in_head or self._is_receiving()):
            self._in_request_line = b"\n" not in data
            data = escape_line(data)
        head_before = self._heads if self._in_head else 0
        before = self._incoming, self._incoming.received_bytes if self._incoming is not None else 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # the request is complete; the connection ends with its answer
        except httptools.HttpParserError as error:
            self._refuse_bytes(error)
            return
        if self._in_head:
            self._limit_head(len(data) if head_before == self._heads else 0)
        elif self._incoming is not None and self._is_receiving():
            self._limit_framing(len(data), progress=before != (self._incoming, self._incoming.received_bytes))

    def _scope(self, method: bytes, version: str) -> Scope:
        url = restore_url(self._url)
        if url.startswith(b"/"):
            path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url) if b"://" in url else None
            path, query = (parsed.path or b"/", parsed.query or b"") if parsed else (url, b"")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": self._scheme,
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "client": self._client,
            "server": self._server,
            "verified": self._mark_proven,
        }

    def _start(self, exchange: Exchange) -> None:
        self._cancel_timer()
        self._active = exchange
        task = self.loop.create_task(exchange.run(self._application))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _limit_head(self, more_bytes: int) -> None:
        """Limit an incomplete head in bytes (roughly; exactly once it is complete) and in seconds."""
        self._head_bytes += more_bytes
        if self._head_bytes > self._head_bytes_max:
            text = f"the request head is longer than {self._head_bytes_max} bytes"
            self._refuse_bytes(HeadRefusedError(431, text))
        elif self._active is None and not more_bytes:
            self._set_timer(self.settings.head_seconds_max, self.close)

    def _limit_framing(self, more_bytes: int, *, progress: bool) -> None:
        """Limit the framing and trailers of a chunked body: the parser keeps a whole trailer in memory."""
        self._framing_bytes = 0 if progress else self._framing_bytes + more_bytes
        if self._framing_bytes > self._head_bytes_max:
            self._refuse_bytes(HeadRefusedError(400, "the framing or trailers of the chunked body are too long"))

    def _refuse_bytes(self, error: Exception) -> None:
        """Refuse bytes that are no valid request, if it is this request's turn, and end the connection."""
        cause = error if isinstance(error, HeadRefusedError) else error.__context__
        self._stopped_parsing = True
        if self._incoming is not None and self._is_receiving():
            self._incoming.break_off()  # the body is unreadable: its exchange answers
        if self._active is not None:
            (self._line[-1] if self._line else self._active).keep_alive = False
            return
        if isinstance(cause, HeadRefusedError):
            self._refuse(cause.status, IllegalArgumentException(cause.message))
        else:
            self._refuse(400, IllegalArgumentException("the request is not valid HTTP/1.1"))

    def _refuse(self, status: int, error: ModelError) -> None:
        """Answer a request that has no exchange."""
        response = wire_error.encode(error, None, self._new_id())
        lines = [STATUS_LINES[status], *self.default_lines()]
        lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in response.headers]
        lines += [b"content-length: %d\r\nconnection: close\r\n\r\n" % len(response.body), bytes(response.body.data)]
        self.write(b"".join(lines))
        self._linger(None)

    def _linger(self, exchange: Exchange | None) -> None:
        """Give the client time to read the last answer, and discard what it still sends."""
        self.closing = self._stopped_parsing = True
        self._line.clear()
        if self._peer_ended or (exchange is not None and exchange.body_complete):
            self.close()
            return
        settings = self.settings
        self._lingering_bytes = (
            settings.linger_bytes_max if exchange is not None and not exchange.broken else settings.drain_bytes_max
        )
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.resume_reading()
        self._set_timer(self.settings.drain_seconds_max, self.close)

    def _is_receiving(self) -> bool:
        """Whether incoming bytes belong to a body that is still needed."""
        incoming = self._incoming
        if incoming is None or incoming.body_complete or incoming.broken:
            return False
        return self._lingering_bytes is None

    def _discard(self, more_bytes: int) -> None:
        if self._lingering_bytes is not None:
            self._lingering_bytes -= more_bytes
            if self._lingering_bytes < 0:
                self.close()

    def _set_timer(self, delay_seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(delay_seconds, then)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
