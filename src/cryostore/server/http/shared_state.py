"""State that all connections of one event loop share: the shutdown flag, and the connections of unknown clients.

A connection is proven once a request on it carried a valid signature. Anybody can open connections and send nothing, or
send requests without a key; that must not keep clients with a key out. So when the limit of connections is reached, an
unproven connection is closed to make room for a new one.
"""

from __future__ import annotations

from typing import Protocol

from uvicorn.server import ServerState

GRACE_SECONDS = 1.0
"""How long a client may take to send a request before its connection can be closed for a new one."""


class UnprovenConnection(Protocol):
    """The part of a connection that this module uses."""

    @property
    def is_answering(self) -> bool:
        """Whether a request is under way on it."""
        ...

    def abort(self) -> None:
        """Close it at once."""
        ...


class UnprovenConnections:
    """The unproven connections of one event loop, oldest first."""

    def __init__(self) -> None:
        self._opened: dict[UnprovenConnection, float] = {}

    def add(self, connection: UnprovenConnection, now: float) -> None:
        """Add a connection that was opened now, in seconds of the event loop's clock."""
        self._opened[connection] = now

    def discard(self, connection: UnprovenConnection) -> None:
        """Remove a connection: its client is proven, or it is closed. May be repeated."""
        self._opened.pop(connection, None)

    @property
    def can_make_room(self) -> bool:
        """Whether an unproven connection can be closed for a new one, now or after its grace period."""
        return bool(self._opened)

    def make_room(self, now: float) -> bool:
        """Close the oldest unproven connection, preferably one without a request under way; false if there is none."""
        old = [connection for connection, opened in self._opened.items() if now - opened >= GRACE_SECONDS]
        if not old:
            return False
        chosen = next((connection for connection in old if not connection.is_answering), old[0])
        self.discard(chosen)
        chosen.abort()
        return True


class SharedState(ServerState):
    """uvicorn's state of a server, with ours."""

    def __init__(self) -> None:
        super().__init__()
        self.unproven = UnprovenConnections()
        self.draining = False
        """The server was told to stop: an answer is the last on its connection, unless requests wait in line there."""
