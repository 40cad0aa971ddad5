"""An exchange: one request and its answer on a connection, in the form of ASGI: `scope`, `receive` and `send`.

It gathers a body with one copy at most and one wake-up, and writes an answer in one go. Not here: parsing, the order of
exchanges and the timers between them (`connection`), and what a request means (`requests.application`).

It adds three promises to ASGI:

- A body of declared length arrives as one message, whole, unless the application sets `piecewise` in the scope before
  its first `receive`. Hardly anything is read before that call: the application decides when to spend memory.
- The scope has a function `verified`, which the application calls once it knows the sender.
- `http.disconnect` also means that the sender stopped sending. An answer may still be sent, and reaches a client that
  reads it.

`SlowReaderWatch` finds clients that do not read the answer that is written to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Protocol

from cryostore.core.process_resources import unfilled
from cryostore.options.configuration import ConnectionSettings

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

READ_AHEAD_BYTES = 64 * 1024
PIECE_BYTES = 256 * 1024
JOINED_BYTES_MAX = 64 * 1024
STANDSTILL_DIVISOR = 10
"""A timer that is late by more than its period divided by this shows that the process stood still."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
DISCONNECT: Message = {"type": "http.disconnect"}
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
RECHECK_SECONDS = 0.1
"""The event loop runs timers that are due before it reads its sockets. After a standstill of this process, perhaps of
the whole machine, the progress of the other side shows only once the sockets were read: timers wait that long."""


class ClientConnection(Protocol):
    """The connection of an exchange, as far as the exchange uses it."""

    settings: ConnectionSettings
    loop: asyncio.AbstractEventLoop

    @property
    def goes_on(self) -> bool:
        """Whether another exchange may follow this one."""
        ...

    def default_lines(self) -> list[bytes]:
        """Return the header lines of every answer."""
        ...

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write, unless the connection is closed."""
        ...

    async def written(self) -> None:
        """Wait until the client has read all but a little of what was written, or the connection is closed."""
        ...

    def finish(self, exchange: Exchange, *, keep_alive: bool) -> None:
        """Go on with the next exchange, or end the connection."""
        ...

    def pause_reading(self) -> None:
        """Stop reading from the socket."""
        ...

    def resume_reading(self) -> None:
        """Read from the socket again."""
        ...

    def abort(self) -> None:
        """Close the connection at once."""
        ...


class Exchange:
    """A request being received and answered. `declared_bytes` None: the body is chunked."""

    __slots__ = (
        "_body",
        "_connection",
        "_declared_bytes",
        "_due",
        "_expects_continue",
        "_headers",
        "_progress_bytes",
        "_room",
        "_status",
        "_timer",
        "_waiter",
        "answered",
        "body_complete",
        "broken",
        "direct",
        "keep_alive",
        "received_bytes",
        "scope",
    )

    def __init__(
        self,
        connection: ClientConnection,
        scope: Scope,
        *,
        declared_bytes: int | None,
        expects_continue: bool,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self.scope = scope
        self._declared_bytes = declared_bytes
        self._expects_continue = expects_continue
        self.keep_alive = keep_alive
        self.received_bytes = 0
        self.body_complete = False
        self.broken = False
        self.answered = False
        self.direct = False
        """The rest of the body bypasses the parser: the connection reads it into `room`."""
        self._body: bytes | bytearray = b""
        self._room: memoryview | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._progress_bytes = 0
        self._due = 0.0
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []

    # --- for the connection: bytes of the body --------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Add the next bytes of the body, from the parser."""
        self.received_bytes += len(data)
        if self.answered:
            return  # answered before the body was read: the rest is discarded
        if self._room is not None:
            self._room[self.received_bytes - len(data) : self.received_bytes] = data
        elif not self._body:
            self._body = data  # most small bodies come in one piece: it is not copied
        elif isinstance(self._body, bytearray):
            self._body += data
        else:
            self._body = bytearray(self._body) + data
        if self._waiter is None:
            if len(self._body) > READ_AHEAD_BYTES:
                self._connection.pause_reading()
        elif self._piece_is_ready():
            self._wake()

    @property
    def missing_bytes(self) -> int:
        """How many bytes of a body of declared length have not arrived yet."""
        return (self._declared_bytes or 0) - self.received_bytes

    def room(self) -> memoryview | None:
        """Return the buffer for the rest of a direct body; None once the body is no longer needed."""
        return None if self._room is None else self._room[self.received_bytes :]

    def take(self, more_bytes: int) -> None:
        """Count bytes of a direct body that were written to `room`."""
        self.received_bytes += more_bytes

    def complete(self) -> None:
        """Mark the body as complete."""
        self.body_complete = True
        self._wake()

    def break_off(self) -> None:
        """Mark the body as broken off: the connection is closed, unreadable, or too slow."""
        self.broken = True
        self._wake()

    # --- for the application --------------------------------------------------------------------------------------

    async def run(self, application: Application) -> None:
        """Run the application on this exchange; close the connection if it ends without an answer."""
        try:
            await application(self.scope, self.receive, self.send)
        finally:
            if not self.answered:
                self._connection.abort()

    async def receive(self) -> Message:
        """Return the next piece of the body, or a disconnect if no more will come."""
        if not self.body_complete:
            if self._expects_continue:
                self._expects_continue = False
                self._connection.write(CONTINUE)
            self._allocate_body()
            while not self._can_return():
                await self._wait()
        piece = self._take_body()
        if self.broken or self.answered:
            return DISCONNECT
        return {"type": "http.request", "body": piece, "more_body": not self.body_complete}

    async def send(self, message: Message) -> None:
        """Write the answer, whose body is one message. Returns when the client has read all but a little of it."""
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], message["headers"]
            return
        if self.answered or message.get("more_body"):
            raise RuntimeError("an answer has one body message only")
        keep_alive = self.keep_alive and self._connection.goes_on and (self.body_complete or self._can_be_drained())
        head = self._head(keep_alive=keep_alive)
        self.answered = True
        self._take_body()
        body = message.get("body", b"")
        if self.scope["method"] == "HEAD":
            self._connection.write(head)
        elif len(body) <= JOINED_BYTES_MAX:
            self._connection.write(head + body)
        else:
            self._connection.write(head)
            self._connection.write(body)
        await self._connection.written()
        self._connection.finish(self, keep_alive=keep_alive)

    # --- internal -------------------------------------------------------------------------------------------------

    def _allocate_body(self) -> None:
        """Allocate a long body, so that the connection reads the rest straight into it."""
        if self._declared_bytes is None or self._declared_bytes <= READ_AHEAD_BYTES:
            return
        if self.direct or self.broken or self.answered or self.scope.get("piecewise"):
            return
        whole = unfilled(self._declared_bytes)  # it is returned only if every byte of it was written
        whole[: len(self._body)] = self._body
        self._body, self._room, self.direct = whole, memoryview(whole), True

    def _take_body(self) -> bytes | bytearray:
        """Return what has arrived of the body, and keep no reference to it."""
        piece, self._body, self._room = self._body, b"", None
        return piece

    def _head(self, *, keep_alive: bool) -> bytes:
        lines = [STATUS_LINES[self._status], *self._connection.default_lines()]
        lines.extend(b"%s: %s\r\n" % header for header in self._headers)
        if not keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        # A line break within a value would let its author forge a header or a whole answer.
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise ValueError("a response header contains a line break")
        return head

    def _can_be_drained(self) -> bool:
        """Whether the rest of an unread body is short enough to discard, so that the connection can be kept."""
        if self.broken or self._expects_continue or self._declared_bytes is None:
            return False
        return self._declared_bytes - self.received_bytes <= self._connection.settings.drain_bytes_max

    def _can_return(self) -> bool:
        return self.body_complete or self.broken or self._piece_is_ready()

    def _piece_is_ready(self) -> bool:
        whole = self._declared_bytes is not None and not self.scope.get("piecewise")
        return not whole and len(self._body) >= PIECE_BYTES

    async def _wait(self) -> None:
        loop = self._connection.loop
        self._connection.resume_reading()
        self._waiter = loop.create_future()
        self._progress_bytes = self.received_bytes
        self._start_period()
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _start_period(self) -> None:
        seconds = self._connection.settings.body_idle_seconds_max
        self._due = self._connection.loop.time() + seconds
        self._call_later(seconds, self._check_progress)

    def _check_progress(self) -> None:
        """Judge the sender at the end of a period; if too little came, give the event loop time to read the socket.

        If this process stood still for long, the sender may have stood still with it, as when a whole machine is
        frozen between the head of a request and its body: the sender gets another period.
        """
        if self._progressed():
            return
        late_seconds = self._connection.loop.time() - self._due
        if late_seconds > self._connection.settings.body_idle_seconds_max / STANDSTILL_DIVISOR:
            self._start_period()
        else:
            self._call_later(RECHECK_SECONDS, self._give_up_on_sender)

    def _give_up_on_sender(self) -> None:
        if not self._progressed():
            self.break_off()

    def _progressed(self) -> bool:
        """Whether enough bytes came in the period; if so, start the next period."""
        if self.received_bytes - self._progress_bytes < self._connection.settings.body_progress_bytes_min:
            return False
        self._progress_bytes = self.received_bytes
        self._start_period()
        return True

    def _call_later(self, delay_seconds: float, then: Callable[[], None]) -> None:
        self._timer = self._connection.loop.call_later(delay_seconds, then)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class SlowReaderWatch:
    """Finds that a client reads nothing for `idle_seconds_max` while written bytes wait for it."""

    __slots__ = ("_give_up", "_idle_seconds_max", "_loop", "_timer", "_transport", "_unwritten_bytes", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop, idle_seconds_max: float) -> None:
        self._loop = loop
        self._idle_seconds_max = idle_seconds_max
        self._transport: asyncio.WriteTransport | None = None
        self._give_up: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._unwritten_bytes = 0

    def start(self, transport: asyncio.WriteTransport, give_up: Callable[[], None]) -> None:
        """Watch the buffer of `transport` until `stop`, and call `give_up` if the client is too slow. Idempotent."""
        if self._timer is None:
            self._transport, self._give_up = transport, give_up
            self._unwritten_bytes = transport.get_write_buffer_size()
            self._timer = self._loop.call_later(self._idle_seconds_max, self._recheck)

    def stop(self) -> None:
        """End the watch, since the client has caught up or its connection is closed; wake `wait`. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._transport = self._give_up = self._timer = None  # idle, it keeps no connection alive
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for `stop`; returns at once if the client is not watched."""
        if self._timer is not None:
            self._waiter = self._loop.create_future()
            await self._waiter

    def _recheck(self) -> None:
        """Let the event loop write to the socket before the client is judged (`RECHECK_SECONDS`)."""
        self._timer = self._loop.call_later(RECHECK_SECONDS, self._judge)

    def _judge(self) -> None:
        assert self._transport is not None
        assert self._give_up is not None
        self._timer = None
        if self._transport.get_write_buffer_size() >= self._unwritten_bytes:
            self._give_up()
        else:
            self.start(self._transport, self._give_up)
