"""Places for connections: when all are taken, those of clients that nobody knows are given to newcomers.

A connection is proven once a request on it carried a right signature. Anybody can open connections and say nothing, or
send requests that mean nothing; that must not keep out who has a key.
"""

from __future__ import annotations

from typing import Protocol

GRACE_SECONDS = 1.0
"""A client gets so long to send a request before its place can go to another."""


class Occupant(Protocol):
    """A connection, as far as this file knows it."""

    @property
    def is_answering(self) -> bool:
        """Whether a request is under way on it."""
        ...

    def abort(self) -> None:
        """End it at once."""
        ...


class Places:
    """The unproven connections of one event loop, in the order in which they came."""

    def __init__(self) -> None:
        self._unproven: dict[Occupant, float] = {}

    def take(self, occupant: Occupant, now: float) -> None:
        """A connection begins."""
        self._unproven[occupant] = now

    def prove(self, occupant: Occupant) -> None:
        """The client of a connection is known, or the connection is gone. May be repeated."""
        self._unproven.pop(occupant, None)

    @property
    def can_make_room(self) -> bool:
        """Whether a newcomer gets a place, now or in a moment, though all are taken."""
        return bool(self._unproven)

    def make_room(self, now: float) -> bool:
        """End the oldest unproven connection, rather one on which no request is under way; false if there is none."""
        old = [occupant for occupant, came in self._unproven.items() if now - came >= GRACE_SECONDS]
        if not old:
            return False
        chosen = next((occupant for occupant in old if not occupant.is_answering), old[0])
        self.prove(chosen)
        chosen.abort()
        return True
