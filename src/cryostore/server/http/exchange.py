"""One request and its answer on a connection, in the shape ASGI gives them: `scope`, `receive` and `send`.

Lives here: gathering a body with one copy at most and one wake-up, and writing an answer in one go. Does not live here:
parsing, order and timers between exchanges (`connection`), and what a request means (`asgi`).

Within ASGI, two promises beyond it:

- A body whose length was declared arrives as one message, whole, unless the application sets `piecewise` in the scope
  before it first calls `receive`; hardly anything of it is read before that, so whoever calls decides when memory is
  spent.
- An application that knows the sender calls `verified`, which it finds in the scope.
- `http.disconnect` also stands for a sender that stopped sending. An answer may still be sent then, and is, if there is
  anybody to read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Protocol

from cryostore.core.memory import unfilled
from cryostore.options.configuration import ConnectionSettings

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

READ_AHEAD_BYTES = 64 * 1024
PIECE_BYTES = 256 * 1024
JOINED_BYTES_MAX = 64 * 1024
LOOK_SECONDS = 0.1
"""The event loop calls timers that are due before it looks at its sockets. After a standstill of this process, of the
whole machine perhaps, what the other side has sent long ago shows only then."""
STANDSTILL_PART = 10
"""A timer that is late by more than this part of its period was not just waiting for its turn."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
DISCONNECT: Message = {"type": "http.disconnect"}
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


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
        """The bytes of the body that are still missing come past the parser, into `room`."""
        self._body: bytes | bytearray = b""
        self._room: memoryview | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._progress_bytes = 0
        self._due = 0.0
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []

    # --- the connection's side: bytes in --------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self.received_bytes += len(data)
        if self.answered:
            return  # answered before it was read: the rest is thrown away as it comes
        if self._room is not None:
            self._room[self.received_bytes - len(data) : self.received_bytes] = data
        elif not self._body:
            self._body = data  # nearly always all there is of a small one: not copied
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
        """How much of a body of declared length is still to come."""
        return (self._declared_bytes or 0) - self.received_bytes

    def room(self) -> memoryview | None:
        """Where what is missing of a direct body goes; None if nobody wants it any more."""
        return None if self._room is None else self._room[self.received_bytes :]

    def take(self, more_bytes: int) -> None:
        """So much more of a direct body has come in."""
        self.received_bytes += more_bytes

    def complete(self) -> None:
        """The body is here to its last byte."""
        self.body_complete = True
        self._wake()

    def break_off(self) -> None:
        """The body will not be completed: the connection is gone, unreadable, or too slow."""
        self.broken = True
        self._wake()

    # --- the application's side -----------------------------------------------------------------------------------

    async def run(self, application: Application) -> None:
        """Carry out the exchange; whatever goes wrong, the connection does not stay behind half answered."""
        try:
            await application(self.scope, self.receive, self.send)
        finally:
            if not self.answered:
                self._connection.abort()

    async def receive(self) -> Message:
        """The next piece of the body, or that there will be none."""
        if not self.body_complete:
            if self._expects_continue:
                self._expects_continue = False
                self._connection.write(CONTINUE)
            self._make_room()
            while not self._is_settled():
                await self._wait()
        piece = self._let_go()
        if self.broken or self.answered:
            return DISCONNECT
        return {"type": "http.request", "body": piece, "more_body": not self.body_complete}

    async def send(self, message: Message) -> None:
        """Write the answer, whose body is one message. Returns when the peer has read enough of it to go on."""
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], message["headers"]
            return
        if self.answered or message.get("more_body"):
            raise RuntimeError("an answer has one body message")
        keep_alive = self.keep_alive and self._connection.goes_on and (self.body_complete or self._can_be_drained())
        head = self._head(keep_alive=keep_alive)
        self.answered = True
        self._let_go()
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

    # --- inside ---------------------------------------------------------------------------------------------------

    def _make_room(self) -> None:
        """Let what is missing of a long body come straight to where it will stay."""
        if self._declared_bytes is None or self._declared_bytes <= READ_AHEAD_BYTES:
            return
        if self.direct or self.broken or self.answered or self.scope.get("piecewise"):
            return
        whole = unfilled(self._declared_bytes)  # nobody gets it unless the body comes to its end
        whole[: len(self._body)] = self._body
        self._body, self._room, self.direct = whole, memoryview(whole), True

    def _let_go(self) -> bytes | bytearray:
        """Hand over what there is of the body, and keep nothing."""
        piece, self._body, self._room = self._body, b"", None
        return piece

    def _head(self, *, keep_alive: bool) -> bytes:
        lines = [STATUS_LINES[self._status], *self._connection.default_lines()]
        lines.extend(b"%s: %s\r\n" % header for header in self._headers)
        if not keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        # A line break within a value would be a header, or an answer, of somebody else's making.
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise ValueError("a response header holds a line break")
        return head

    def _can_be_drained(self) -> bool:
        """Whether the rest of an unread body is short enough to read past, so that the connection stays useful."""
        if self.broken or self._expects_continue or self._declared_bytes is None:
            return False
        return self._declared_bytes - self.received_bytes <= self._connection.settings.drain_bytes_max

    def _is_settled(self) -> bool:
        return self.body_complete or self.broken or self._piece_is_ready()

    def _piece_is_ready(self) -> bool:
        whole = self._declared_bytes is not None and not self.scope.get("piecewise")
        return not whole and len(self._body) >= PIECE_BYTES

    async def _wait(self) -> None:
        loop = self._connection.loop
        self._connection.resume_reading()
        self._waiter = loop.create_future()
        self._progress_bytes = self.received_bytes
        self._watch()
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _watch(self) -> None:
        seconds = self._connection.settings.body_idle_seconds_max
        self._due = self._connection.loop.time() + seconds
        self._later(seconds, self._check_progress)

    def _check_progress(self) -> None:
        """The period is over; if nothing came, look at the socket once more: it may be we who stood still.

        If it was, for long, the sender may have stood still with us, as where a whole machine is frozen between the
        head of a request and its body: it gets another period.
        """
        if self._go_on_watching():
            return
        late_seconds = self._connection.loop.time() - self._due
        if late_seconds > self._connection.settings.body_idle_seconds_max / STANDSTILL_PART:
            self._watch()
        else:
            self._later(LOOK_SECONDS, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        if not self._go_on_watching():
            self.break_off()

    def _go_on_watching(self) -> bool:
        """Whether enough has come in the period; then another one begins."""
        if self.received_bytes - self._progress_bytes < self._connection.settings.body_progress_bytes_min:
            return False
        self._progress_bytes = self.received_bytes
        self._watch()
        return True

    def _later(self, delay_seconds: float, then: Callable[[], None]) -> None:
        self._timer = self._connection.loop.call_later(delay_seconds, then)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
