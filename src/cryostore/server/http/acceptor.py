"""How several workers share the connections of one listening socket: the least busy takes the next.

All of them wait on the same socket, so a connection nobody has taken yet outlives any one of them. Left to itself, the
first to wake would take all that are waiting, and the others would sleep on. So a worker takes one at a time, and
leaves it to the others for COURTESY_SECONDS if one of them has fewer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Callable
from ssl import SSLContext

from cryostore.core.limits import KIB
from cryostore.server.http.board import ABSENT, Board

BACKLOG = 2048
COURTESY_SECONDS = 0.01
OUT_OF_DESCRIPTORS_SECONDS = 0.1
REFUSED_AT_ONCE_MAX = 100
DESCRIPTORS_KEPT = 256
"""Of the files this process may open so many, or half of all, are for the store and not for connections."""
UNREAD_BYTES = 64 * KIB
_REFUSAL = b'{"message": "the server has too many files open; retry later"}'
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nx-amzn-errortype: ServiceUnavailableException\r\nretry-after: 1\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
) % (len(_REFUSAL), _REFUSAL)


def connections_max() -> int:
    """How many connections leave enough descriptors for the store. Asked anew each time: the limit may be changed."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - min(DESCRIPTORS_KEPT, limit // 2)


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
        refused: Callable[[], None] = lambda: None,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        self._make_room = make_room
        self._refused = refused
        self._spare = -1
        self._take_spare()
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
        self._give_spare()
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
            self._refuse_waiting()
            self._rest(OUT_OF_DESCRIPTORS_SECONDS)
            return
        connection.settimeout(0)
        if self._spare < 0:
            self._take_spare()
        if self._connections() + len(self._arriving) >= connections_max() and not self._make_room():
            self._refuse(connection)
            return
        task = self._loop.create_task(self._welcome(connection))
        self._arriving.add(task)
        task.add_done_callback(self._arrived)
        self.report()

    def _refuse_waiting(self) -> None:
        """Refuse the connections that there is no descriptor for, one by one in the place of the spare one."""
        for _ in range(REFUSED_AT_ONCE_MAX):
            if self._spare < 0:
                break  # somebody else was quicker to take its place
            self._give_spare()
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            else:
                connection.settimeout(0)
                self._refuse(connection)
            finally:
                self._take_spare()

    def _refuse(self, connection: socket.socket) -> None:
        """Say why, without TLS, and hang up. Whatever was sent already is read, or the answer would be lost."""
        with contextlib.suppress(OSError):
            if self._tls is None:
                connection.send(REFUSAL)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(UNREAD_BYTES)
        connection.close()
        self._refused()

    def _take_spare(self) -> None:
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    async def _welcome(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection, ssl=self._tls)
        except OSError:
            connection.close()  # it ended, or its TLS handshake failed: nobody to tell

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        self.report()
