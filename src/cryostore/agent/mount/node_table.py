"""Table of nodes: the numbers under which the kernel knows the entries of a mount, for as long as it knows them."""

from __future__ import annotations

import threading
from typing import NamedTuple

ROOT = 1


class NodeLocation(NamedTuple):
    """The location of a node: a path in the recovery point of this ARN or, without an ARN, in the folders above."""

    point: str
    path: bytes


class NodeTable:
    """Locations by node number, with look-up counts. Thread safe."""

    def __init__(self, root: NodeLocation) -> None:
        self._lock = threading.Lock()
        self._locations = {ROOT: root}
        self._numbers = {root: ROOT}
        self._counts = {ROOT: 1}
        self._next = ROOT + 1

    def __len__(self) -> int:
        return len(self._locations)

    def location(self, number: int) -> NodeLocation:
        """Return the location of a node. Raises FileNotFoundError if the kernel forgot it."""
        with self._lock:
            if (location := self._locations.get(number)) is None:
                raise FileNotFoundError(2, "no such node")
            return location

    def look_up(self, location: NodeLocation) -> int:
        """Return the number of a location, and count one more look-up."""
        with self._lock:
            number = self._numbers.get(location)
            if number is None:
                number, self._next = self._next, self._next + 1
                self._locations[number] = location
                self._numbers[location] = number
            self._counts[number] = self._counts.get(number, 0) + 1
            return number

    def forget(self, number: int, count: int) -> None:
        """Take back `count` look-ups; drop a location without look-ups."""
        with self._lock:
            if number == ROOT or number not in self._locations:
                return
            self._counts[number] -= count
            if self._counts[number] <= 0:
                del self._counts[number]
                del self._numbers[self._locations.pop(number)]
