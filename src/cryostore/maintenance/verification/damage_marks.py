"""Damage marks: writes the results of a check or repair to the catalog, some hundreds in a transaction."""

from __future__ import annotations

from functools import partial

from cryostore.catalog.database import Transaction
from cryostore.catalog.queries import damage
from cryostore.catalog.queries.damage import LocatedChunk
from cryostore.core.errors import StorageUnavailableError
from cryostore.service import Context

PLACES_PER_BATCH = 500
LEFT_MAX = 200_000
"""The number of chunks that could not be marked and are kept in memory, to name what they affect."""


class DamageMarks:
    """Collects damaged and sound chunks, and sets or removes their marks if their rows still point to the same place.

    A chunk that proves sound loses its mark: perhaps its disk was away. `marked` counts the newly marked chunks. If the
    catalog cannot be written, `problem` says why, and `left` holds the chunks that were not marked.
    """

    def __init__(self, context: Context) -> None:
        self.marked = 0
        self.problem = ""
        self.left: set[tuple[int, bytes]] = set()
        self._context = context
        self._places: list[LocatedChunk] = []
        self._sound: list[LocatedChunk] = []

    def add(self, place: LocatedChunk) -> None:
        """Collect a damaged chunk for the next `flush`."""
        self._places.append(place)

    def add_sound(self, place: LocatedChunk) -> None:
        """Collect a marked chunk that proved sound for the next `flush`."""
        self._sound.append(place)

    def flush_if_due(self) -> None:
        """Write the collected marks if there are enough for a transaction."""
        if len(self._places) + len(self._sound) >= PLACES_PER_BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the collected marks to the catalog."""
        places, self._places = self._places, []
        sound, self._sound = self._sound, []
        if not (places or sound):
            return
        work = partial(_mark_all, places=places, sound=sound, now_ms=self._context.clock())
        try:
            with self._context.reserve.spending():
                self.marked += self._context.database.write(work)
        except StorageUnavailableError as error:
            self.problem = error.message
            self.left.update(place[:2] for place in places[: LEFT_MAX - len(self.left)])


def _mark_all(transaction: Transaction, places: list[LocatedChunk], sound: list[LocatedChunk], now_ms: int) -> int:
    for place in sound:
        damage.clear(transaction, place)
    return sum(damage.mark(transaction, place, now_ms=now_ms) for place in places)
