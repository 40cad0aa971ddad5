"""Counter of round trips to PostgreSQL: a relay in front of the server that reads the messages.

A round trip is all messages that the client sends before it waits for a response.
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import NamedTuple, Self

RECEIVE_BYTES = 64 * 1024
ENCRYPTION_REQUESTS = (80877103, 80877104)
QUERY, EXECUTE = b"Q"[0], b"E"[0]


class Counts(NamedTuple):
    """The numbers of waits for a response and of executed statements."""

    round_trips: int
    statements: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.round_trips - other.round_trips, self.statements - other.statements)


class WireCount:
    """A relay to the server at `host` and `port`, listening at `self.port` of this machine. A context manager."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._counts = Counts(0, 0)
        self.port = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # this ends `accept` in the other thread; `close` alone does not
        self._listener.close()
        with self._lock:
            for each in self._sockets:
                each.close()

    def so_far(self) -> Counts:
        """Return the counts of all connections."""
        with self._lock:
            return self._counts

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets += [client, server]
            session = _Session()
            threading.Thread(target=self._relay, args=(client, server, session, True), daemon=True).start()
            threading.Thread(target=self._relay, args=(server, client, session, False), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, session: _Session, from_client: bool) -> None:  # noqa: FBT001 - only a thread calls it
        try:
            while data := source.recv(RECEIVE_BYTES):
                with self._lock:
                    round_trips = int(from_client and session.answered)
                    session.answered = not from_client
                    statements = session.statements(data) if from_client else 0
                    self._counts = Counts(self._counts.round_trips + round_trips, self._counts.statements + statements)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return  # one side has closed; the other one notices it


class _Session:
    """The bytes of an incomplete message of one client."""

    def __init__(self) -> None:
        self.answered = True
        self._rest = b""
        self._begun = False

    def statements(self, data: bytes) -> int:
        """Return the number of statements in the messages that this data completes."""
        self._rest += data
        count = 0
        while message := self._message():
            if message[0] == EXECUTE:
                count += 1
            elif message[0] == QUERY:
                count += sum(bool(part.strip(b" \n\0")) for part in message[5:].split(b";"))
        return count

    def _message(self) -> bytes:
        """Return the next whole message, empty if there is none. The first ones of a connection have no type byte."""
        place = int(self._begun)
        if len(self._rest) < place + 8 and not (self._begun and len(self._rest) >= 5):
            return b""
        (length,) = struct.unpack_from(">I", self._rest, place)
        if len(self._rest) < place + length:
            return b""
        message, self._rest = self._rest[: place + length], self._rest[place + length :]
        if not self._begun:
            self._begun = struct.unpack_from(">I", message, 4)[0] not in ENCRYPTION_REQUESTS
            return b"\0" + message
        return message
