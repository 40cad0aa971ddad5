"""The numbers under which the kernel knows what is in a mount, for as long as it does."""

from __future__ import annotations

import threading
from typing import NamedTuple

ROOT = 1


class NodeLocation(NamedTuple):
    """Where a node is: a path in a recovery point, by its ARN, or without one in the folders above all points."""

    point: str
    path: bytes


class NodeTable:
    """Places by number. Thread safe."""

    def __init__(self, root: NodeLocation) -> None:
        self._lock = threading.Lock()
        self._places = {ROOT: root}
        self._numbers = {root: ROOT}
        self._counts = {ROOT: 1}
        self._next = ROOT + 1

    def __len__(self) -> int:
        return len(self._places)

    def place(self, number: int) -> NodeLocation:
        """The place of a node. Raises FileNotFoundError if it was forgotten."""
        with self._lock:
            if (place := self._places.get(number)) is None:
                raise FileNotFoundError(2, "no such node")
            return place

    def look_up(self, place: NodeLocation) -> int:
        """The number of a place, counted as looked up once more."""
        with self._lock:
            number = self._numbers.get(place)
            if number is None:
                number, self._next = self._next, self._next + 1
                self._places[number] = place
                self._numbers[place] = number
            self._counts[number] = self._counts.get(number, 0) + 1
            return number

    def forget(self, number: int, count: int) -> None:
        """Take back some lookups; a place that nobody knows any more is dropped."""
        with self._lock:
            if number == ROOT or number not in self._places:
                return
            self._counts[number] -= count
            if self._counts[number] <= 0:
                del self._counts[number]
                del self._numbers[self._places.pop(number)]
