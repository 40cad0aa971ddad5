"""How several workers share the connections of one listening socket: the least busy takes the next.

All of them wait on the same socket, so a connection nobody has taken yet outlives any one of them. Left to itself, the
first to wake would take all that are waiting, and the others would sleep on. So a worker takes one at a time, and
leaves it to the others for COURTESY_SECONDS if one of them has fewer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ssl import SSLContext

from cryostore.server.board import ABSENT, Board

BACKLOG = 2048
COURTESY_SECONDS = 0.01
OUT_OF_DESCRIPTORS_SECONDS = 1.0


class Acceptor:
    """Takes connections from `listener` for one event loop. `connections` says how many this worker has now."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        *,
        board: Board,
        connections: Callable[[], int],
        tls: SSLContext | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make_protocol = make_protocol
        self._board = board
        self._connections = connections
        self._tls = tls
        self._arriving: set[asyncio.Task[None]] = set()
        self._closed = False
        self._pause: asyncio.TimerHandle | None = None
        listener.settimeout(0)
        listener.listen(BACKLOG)
        self.report()
        self._loop.add_reader(listener, self._look)

    def report(self) -> int:
        """Tell the other workers how many connections this one has, and answer it."""
        count = self._connections() + len(self._arriving)
        self._board.write(ABSENT if self._closed else count)
        return count

    def close(self) -> None:
        """Take no more connections; what was taken stays. The listener is the caller's to close."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._loop.remove_reader(self._listener)
        self._closed = True
        self.report()

    async def wait_closed(self) -> None:
        """Wait for connections whose TLS handshake is still under way."""
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _look(self) -> None:
        """A connection is waiting."""
        if self._board.fewest_elsewhere() < self.report():
            self._rest(COURTESY_SECONDS)
        else:
            self._take()

    def _rest(self, delay_seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(delay_seconds, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._look)
        self._take()  # whoever was to have it did not come

    def _take(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was quicker, or the client is gone
        except OSError:
            self._rest(OUT_OF_DESCRIPTORS_SECONDS)
            return
        connection.settimeout(0)
        task = self._loop.create_task(self._welcome(connection))
        self._arriving.add(task)
        task.add_done_callback(self._arrived)
        self.report()

    async def _welcome(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection, ssl=self._tls)
        except OSError:
            connection.close()  # it ended, or its TLS handshake failed: nobody to tell

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        self.report()
