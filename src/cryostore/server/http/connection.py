"""One client connection: bytes in, exchanges out, one at a time and in order. An asyncio protocol for uvicorn's server.

The rules of this file:

- A connection does nothing without a bound: the head of a request in bytes and in seconds, idleness between requests,
  an answer nobody reads, an unread body after an early answer, the number of connections.
- While one request is answered, those that came after it wait unread or at most as far as they came with it.
- After the last answer a connection lingers until the client has had the chance to read it: closing at once while bytes
  are still coming in would make the client's system throw the answer away.
- A long body goes past the parser, from the socket to where it stays (`Exchange.direct`); all else comes through one
  buffer of the event loop, `INTAKE_BYTES` long, which is empty again before the loop turns to anything else.
- The parser is httptools, strict but for one thing: bytes beyond ASCII in a path, as AWS.jl sends them (Backup Storage
  A.5), which travel through it in disguise.
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
from cryostore.server.http.exchange import LOOK_SECONDS, STATUS_LINES, Application, Exchange, Scope
from cryostore.server.http.request_line import disguised, revealed
from cryostore.server.http.shared_state import SharedState
from cryostore.wire import error as wire_error

INTAKE_BYTES = 64 * 1024
LAST_LINGER_SECONDS = 5.0
"""How long a connection may still linger once the server stops."""
REQUEST_LINE_REST = len(b"  HTTP/1.1\r\n") + len(b"\r\n")


class HeadRefusedError(Exception):
    """The head of a request breaks a bound of this file."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Connection(asyncio.BufferedProtocol):
    """A connection, made as uvicorn makes its protocols, with the arguments before `config` bound beforehand.

    `intake` is where its bytes arrive: `INTAKE_BYTES`, shared by all connections of one event loop.
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
        """No request is begun any more."""
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
        self._write_timer: asyncio.TimerHandle | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._unwritten_bytes = 0
        self._active: Exchange | None = None  # being answered
        self._incoming: Exchange | None = None  # being received; the active one, or the last in line
        self._line: deque[Exchange] = deque()
        self._reading = True
        self._stopped_parsing = False  # nothing after the request being received is parsed any more
        self._lingering_bytes: int | None = None
        self._peer_ended = False
        self._in_head = False
        self._in_line = False  # the request line has begun and not ended
        self._heads = 0
        self._head_bytes = 0
        self._framing_bytes = 0  # of a chunked body, since its last byte
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._declared_bytes: int | None = 0
        self._expects_continue = False

    # --- the event loop's side ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve, or refuse a connection too many."""
        transport = cast("asyncio.Transport", transport)  # uvloop's is one by conduct, not by class
        self._transport = transport
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self._client = transport.get_extra_info("peername")
        self._server = transport.get_extra_info("sockname")
        state, now = self._server_state, self.loop.time()
        state.connections.add(self)  # type: ignore[arg-type] # names uvicorn's own
        full = len(state.connections) > self.settings.connections_max
        if full and not state.unproven.make_room(now):
            self._refuse(503, ServiceUnavailableException("too many connections are open; retry later"))
        else:
            state.unproven.add(self, now)
            self._arm(self.settings.head_seconds_max, self.close)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the same for whatever reason
        """Let go of everything; exchanges under way see their body broken off."""
        self._server_state.connections.discard(self)
        self._server_state.unproven.discard(self)
        self.closing = True
        for exchange in (self._active, *self._line):
            if exchange is not None and not exchange.body_complete:
                exchange.break_off()
        self._line.clear()
        self._disarm()
        self._wake_writer()
        self._parser = None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the event loop's wish; what follows is known here
        """Where the next bytes go: into a body that takes them directly, else into the intake."""
        incoming = self._incoming
        if incoming is None or not incoming.direct:
            return self._intake
        return incoming.room() or self._intake[: incoming.missing_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        """Make something of the bytes that went where `get_buffer` said."""
        incoming = self._incoming
        if incoming is None or not incoming.direct:
            self._parse(bytes(self._intake[:nbytes]))
        elif self._lingering_bytes is not None:
            self._throw_away(nbytes)
        else:
            incoming.take(nbytes)
            if not incoming.missing_bytes:
                incoming.direct = False
                self._parser = self._new_parser()  # the old one still waits for the body
                self.on_message_complete()

    def eof_received(self) -> bool:
        """The client will send nothing more; what it asked for it may still read."""
        self._peer_ended = True
        if self._active is None:
            return False
        if self._incoming is not None and not self._incoming.body_complete:
            self._incoming.break_off()
        return True

    def pause_writing(self) -> None:
        """The client reads more slowly than we write: watch that it reads at all."""
        if self._write_timer is None:
            self._unwritten_bytes = self._transport.get_write_buffer_size()
            self._write_timer = self.loop.call_later(self.settings.write_idle_seconds_max, self._look_at_writing)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._wake_writer()

    def shutdown(self) -> None:
        """Called by uvicorn when the server stops: finish the exchange under way, begin no other."""
        self.closing = self._stopped_parsing = True
        self._line.clear()
        if self._lingering_bytes is not None:
            self._arm(min(LAST_LINGER_SECONDS, self.settings.drain_seconds_max), self.close)
        elif self._active is None:
            self.close()

    # --- the parser's side ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = True
        self._heads += 1
        self._head_bytes = self._framing_bytes = 0
        self._url = b""
        self._headers = []
        self._declared_bytes = 0
        self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        """A piece of the request line."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what trails a chunked body is none."""
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
        """The head is here: begin its exchange, or put it in line."""
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
            raise HeadRefusedError(400, "HTTP/1.1 is spoken here")
        exchange = Exchange(
            self,
            self._scope(method, version),
            declared_bytes=self._declared_bytes,
            expects_continue=self._expects_continue and version == "1.1",
            keep_alive=version == "1.1" and not upgrade and parser.should_keep_alive(),
        )
        self._incoming = exchange
        if self._active is None:
            self._begin(exchange)
        else:
            self.pause_reading()
            self._line.append(exchange)
        if not exchange.keep_alive:
            self._stopped_parsing = True

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._incoming is not None:
            self._incoming.feed(data)

    def on_message_complete(self) -> None:
        """The request is here to its last byte."""
        exchange = self._incoming
        if exchange is None:
            return
        exchange.complete()
        if exchange is not self._active and not self._line and not self.closing:
            self._arm(self.settings.keep_alive_seconds_max, self.close)

    # --- the exchange's side --------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write, unless the connection is gone."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def written(self) -> None:
        """Wait until the client has read all but a little of what was written, or is gone."""
        if self._write_timer is not None:
            self._write_waiter = self.loop.create_future()
            await self._write_waiter

    def finish(self, exchange: Exchange, *, keep_alive: bool) -> None:
        """The exchange is answered: go on with the next, or end the connection."""
        self._server_state.total_requests += 1
        self._active = None
        if self._transport.is_closing():
            return
        if not keep_alive:
            self._linger(exchange)
        elif self._line:
            self._begin(self._line.popleft())
        elif self._peer_ended:
            self.close()
        else:
            self.resume_reading()
            drained = exchange.body_complete
            self._arm(self.settings.keep_alive_seconds_max if drained else self.settings.drain_seconds_max, self.close)

    @property
    def is_answering(self) -> bool:
        """Whether an exchange is under way."""
        return self._active is not None

    @property
    def goes_on(self) -> bool:
        """Whether another exchange may follow the present one."""
        return not self.closing and (bool(self._line) or not self._server_state.draining)

    def default_lines(self) -> list[bytes]:
        """The header lines of every answer."""
        return [b"%s: %s\r\n" % header for header in self._server_state.default_headers]

    def pause_reading(self) -> None:
        """Leave what comes next to the sender's system."""
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again, unless others in line would only grow longer by it."""
        if not self._reading and not self._line and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def close(self) -> None:
        """End the connection once what was written is out, or abandon it if that takes too long."""
        self.closing = True
        self._disarm()
        if not self._transport.is_closing():
            if self._transport.get_write_buffer_size():
                self._timer = self.loop.call_later(self.settings.write_idle_seconds_max, self.abort)
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.closing = True
        self._disarm()
        self._transport.abort()

    def _prove(self) -> None:
        self._server_state.unproven.discard(self)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # ignored, rather than a second answer
        return parser

    def _parse(self, data: bytes) -> None:
        if self._stopped_parsing and not self._is_receiving():
            self._throw_away(len(data))
            return
        if self._in_line or not (self._in_head or self._is_receiving()):
            self._in_line = b"\n" not in data
            data = disguised(data)
        head_before = self._heads if self._in_head else 0
        before = self._incoming, self._incoming.received_bytes if self._incoming is not None else 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # the request itself was complete; the connection ends with its answer
        except httptools.HttpParserError as error:
            self._give_up(error)
            return
        if self._in_head:
            self._watch_head(len(data) if head_before == self._heads else 0)
        elif self._incoming is not None and self._is_receiving():
            self._watch_framing(len(data), progress=before != (self._incoming, self._incoming.received_bytes))

    def _scope(self, method: bytes, version: str) -> Scope:
        url = revealed(self._url)
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
            "verified": self._prove,
        }

    def _begin(self, exchange: Exchange) -> None:
        self._disarm()
        self._active = exchange
        task = self.loop.create_task(exchange.run(self._application))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _watch_head(self, more_bytes: int) -> None:
        """Bound a head that is not complete yet, in bytes (roughly; exactly when it is complete) and in seconds."""
        self._head_bytes += more_bytes
        if self._head_bytes > self._head_bytes_max:
            text = f"the request head is longer than {self._head_bytes_max} bytes"
            self._give_up(HeadRefusedError(431, text))
        elif self._active is None and not more_bytes:
            self._arm(self.settings.head_seconds_max, self.close)

    def _watch_framing(self, more_bytes: int, *, progress: bool) -> None:
        """Bound what stands around the pieces of a chunked body: the parser keeps all of a trailer in memory."""
        self._framing_bytes = 0 if progress else self._framing_bytes + more_bytes
        if self._framing_bytes > self._head_bytes_max:
            self._give_up(HeadRefusedError(400, "too much around the pieces of a chunked body"))

    def _give_up(self, error: Exception) -> None:
        """The bytes make no request: answer so if it is this request's turn, and end the connection."""
        cause = error if isinstance(error, HeadRefusedError) else error.__context__
        self._stopped_parsing = True
        if self._incoming is not None and self._is_receiving():
            self._incoming.break_off()  # it is the body that is unreadable: its exchange answers
        if self._active is not None:
            (self._line[-1] if self._line else self._active).keep_alive = False
            return
        if isinstance(cause, HeadRefusedError):
            self._refuse(cause.status, IllegalArgumentException(cause.message))
        else:
            self._refuse(400, IllegalArgumentException("the request is not valid HTTP/1.1"))

    def _refuse(self, status: int, error: ModelError) -> None:
        """Answer a request that never became an exchange."""
        response = wire_error.encode(error, None, self._new_id())
        lines = [STATUS_LINES[status], *self.default_lines()]
        lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in response.headers]
        lines += [b"content-length: %d\r\nconnection: close\r\n\r\n" % len(response.body), bytes(response.body.data)]
        self.write(b"".join(lines))
        self._linger(None)

    def _linger(self, exchange: Exchange | None) -> None:
        """Give the client time to read the last answer, and throw away what it still sends."""
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
        self._arm(self.settings.drain_seconds_max, self.close)

    def _is_receiving(self) -> bool:
        """Whether the bytes that come in belong to a body somebody may still want."""
        incoming = self._incoming
        if incoming is None or incoming.body_complete or incoming.broken:
            return False
        return self._lingering_bytes is None

    def _throw_away(self, more_bytes: int) -> None:
        if self._lingering_bytes is not None:
            self._lingering_bytes -= more_bytes
            if self._lingering_bytes < 0:
                self.close()

    def _arm(self, delay_seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(delay_seconds, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at_writing(self) -> None:
        """Let the event loop look at the socket before it is judged (`LOOK_SECONDS`)."""
        self._write_timer = self.loop.call_later(LOOK_SECONDS, self._check_writing)

    def _check_writing(self) -> None:
        unwritten = self._transport.get_write_buffer_size()
        self._write_timer = None
        if unwritten >= self._unwritten_bytes:
            self.abort()
        else:
            self.pause_writing()

    def _wake_writer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self._write_waiter is not None and not self._write_waiter.done():
            self._write_waiter.set_result(None)
