"""Connection balancing: the workers of a server accept from one listening socket, the least busy worker first.

All workers wait on the same socket, so a connection that no worker has accepted yet outlives any one of them. Without
balancing, the first worker to wake would accept every waiting connection. So a worker accepts one connection at a time,
and leaves it to the others for a moment if one of them has fewer.

How many connections each worker has stands in memory that all workers share (`ConnectionCounts`). The counts are hints:
no process waits for them, and only the distribution of connections depends on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Callable
from ssl import SSLContext

from cryostore.core.limits import KIB

NUMBER_BYTES = 8
ABSENT = 2**62
"""The count of a worker that accepts no connections: higher than every real count."""
BACKLOG = 2048
YIELD_SECONDS = 0.01
"""How long a worker leaves a connection to a less busy one."""
OUT_OF_DESCRIPTORS_SECONDS = 0.1
REFUSED_AT_ONCE_MAX = 100
STORE_DESCRIPTORS = 256
"""Of the files that this process may have open, so many, or half of all, are reserved for the store."""
UNREAD_BYTES = 64 * KIB
_REFUSAL = b'{"message": "the server has too many files open; retry later"}'
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nx-amzn-errortype: ServiceUnavailableException\r\nretry-after: 1\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
) % (len(_REFUSAL), _REFUSAL)


class ConnectionCounts:
    """The counts in the file behind `descriptor`, which the caller closes; `slot` is the one of this worker."""

    def __init__(self, descriptor: int, slot: int) -> None:
        self._slot = slot
        self._numbers = memoryview(mmap.mmap(descriptor, 0)).cast("q")

    def publish(self, connections: int) -> None:
        """Set the count of this worker."""
        self._numbers[self._slot] = connections

    def fewest_elsewhere(self) -> int:
        """Return the lowest count of the other workers; ABSENT if there is no other."""
        others = (number for slot, number in enumerate(self._numbers) if slot != self._slot)
        return min(others, default=ABSENT)


def create_connection_counts(workers: int) -> int:
    """Create counts in which every worker is absent; returns the descriptor. Raises OSError."""
    with tempfile.TemporaryFile() as file:  # unnamed: it disappears with the last process that has it open
        file.write(ABSENT.to_bytes(NUMBER_BYTES, sys.byteorder) * workers)
        file.flush()
        return os.dup(file.fileno())


def mark_absent(descriptor: int, slot: int) -> None:
    """Set the count of the worker in this slot to ABSENT. Raises OSError."""
    os.pwrite(descriptor, ABSENT.to_bytes(NUMBER_BYTES, sys.byteorder), slot * NUMBER_BYTES)


def connections_max() -> int:
    """How many connections leave enough descriptors for the store. Computed each time, since the limit may change."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - min(STORE_DESCRIPTORS, limit // 2)


class ConnectionBalancer:
    """Accepts connections from `listener` on one event loop. `connections` returns how many this worker has now.

    `refused` is called for each refused connection. `make_room` closes a connection that is not needed; it returns
    false if there is none.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        *,
        counts: ConnectionCounts,
        connections: Callable[[], int],
        tls: SSLContext | None,
        refused: Callable[[], None] = lambda: None,
        make_room: Callable[[], bool] = lambda: False,
        connections_max: Callable[[], int] = connections_max,
        yield_seconds: float = YIELD_SECONDS,
    ) -> None:
        self._make_room = make_room
        self._refused = refused
        self._spare_descriptor = -1
        self._open_spare_descriptor()
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make_protocol = make_protocol
        self._counts = counts
        self._connections = connections
        self._connections_max = connections_max
        self._yield_seconds = yield_seconds
        self._tls = tls
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False
        self._pause: asyncio.TimerHandle | None = None
        listener.settimeout(0)
        listener.listen(BACKLOG)
        self.publish_count()
        self._loop.add_reader(listener, self._on_connection_waiting)

    def publish_count(self) -> int:
        """Tell the other workers how many connections this one has, and return that number."""
        count = self._connections() + len(self._starting)
        self._counts.publish(ABSENT if self._closed else count)
        return count

    def close(self) -> None:
        """Accept no more connections; accepted ones stay open. The caller closes the listener."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._loop.remove_reader(self._listener)
        self._closed = True
        self._close_spare_descriptor()
        self.publish_count()

    async def wait_closed(self) -> None:
        """Wait for connections whose TLS handshake is still under way."""
        if self._starting:
            await asyncio.wait(self._starting)

    def _on_connection_waiting(self) -> None:
        if self._counts.fewest_elsewhere() < self.publish_count():
            self._pause_accepting(self._yield_seconds)
        else:
            self._accept()

    def _pause_accepting(self, delay_seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(delay_seconds, self._resume_accepting)

    def _resume_accepting(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._on_connection_waiting)
        self._accept()  # the less busy worker did not accept it

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was quicker, or the client is gone
        except OSError:
            self._refuse_waiting()
            self._pause_accepting(OUT_OF_DESCRIPTORS_SECONDS)
            return
        connection.settimeout(0)
        if self._spare_descriptor < 0:
            self._open_spare_descriptor()
        if self._connections() + len(self._starting) >= self._connections_max() and not self._make_room():
            self._refuse(connection)
            return
        task = self._loop.create_task(self._start(connection))
        self._starting.add(task)
        task.add_done_callback(self._on_started)
        self.publish_count()

    def _refuse_waiting(self) -> None:
        """Refuse the connections for which no descriptor is left, one by one with the spare descriptor."""
        for _ in range(REFUSED_AT_ONCE_MAX):
            if self._spare_descriptor < 0:
                break  # another part of the process took its place
            self._close_spare_descriptor()
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            else:
                connection.settimeout(0)
                self._refuse(connection)
            finally:
                self._open_spare_descriptor()

    def _refuse(self, connection: socket.socket) -> None:
        """Answer 503 (without TLS only) and close. Reads what was sent already, or the answer would be lost."""
        with contextlib.suppress(OSError):
            if self._tls is None:
                connection.send(REFUSAL)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(UNREAD_BYTES)
        connection.close()
        self._refused()

    def _open_spare_descriptor(self) -> None:
        with contextlib.suppress(OSError):
            self._spare_descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _close_spare_descriptor(self) -> None:
        if self._spare_descriptor >= 0:
            os.close(self._spare_descriptor)
            self._spare_descriptor = -1

    async def _start(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection, ssl=self._tls)
        except OSError:
            connection.close()  # it ended, or its TLS handshake failed: there is no client to tell

    def _on_started(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        self.publish_count()
