"""Detection of slow readers: clients that do not read the answer that is written to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

RECHECK_SECONDS = 0.1
"""The event loop runs timers that are due before it reads its sockets. After a standstill of this process, perhaps of
the whole machine, the progress of the other side shows only once the sockets were read: timers wait that long."""


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
