"""Interface of pack writers, and the location of an envelope.

Two writers exist: `growing` for blob stores in which blobs can grow, `immutable` for all others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from cryostore.core.digest import Buffer
from cryostore.core.errors import CryostoreError, StorageUnavailableError
from cryostore.core.limits import KIB, MIB

PACK_BYTES_TARGET = 64 * MIB
EAGER_BYTES_MIN = 256 * KIB
"""Envelopes from this size on are written at once; smaller ones gather and are written together."""


class Location(NamedTuple):
    """Where an envelope lies. `length` counts the whole envelope, header included.

    `pack_bytes` is the size of the pack, set only for a new envelope in a pack that does not grow.
    """

    pack_id: str
    offset: int
    length: int
    pack_bytes: int | None = None


@dataclass(slots=True, eq=False)
class Append:
    """Envelopes of one call, which lie one behind the other in a pack, and the outcome: a place or a failure."""

    envelopes: Sequence[Buffer]
    length: int
    pack_id: str = ""
    offset: int = 0
    pack_bytes: int | None = None
    failure: CryostoreError | None = None

    def locations(self) -> list[Location]:
        """Where each envelope lies. Raises the failure, if the append failed.

        Several appends may share one failure. Each raises an exception of its own, since threads would otherwise
        overwrite each other's traceback.
        """
        failure = self.failure
        if failure is not None:
            kind = type(failure) if isinstance(failure, StorageUnavailableError) else StorageUnavailableError
            raise kind(failure.message, hint=failure.hint) from failure
        offsets = accumulate(map(len, self.envelopes), initial=self.offset)
        return [
            Location(self.pack_id, offset, len(envelope), self.pack_bytes)
            for offset, envelope in zip(offsets, self.envelopes, strict=False)
        ]


class PackWriter(ABC):
    """Writes envelopes to packs. Safe to call from many threads."""

    def append(self, envelope: Buffer) -> Location:
        """Write an envelope durably and return its location.

        Raises StorageFullError or another StorageUnavailableError; then the envelope counts as not written, and a
        later call may succeed.
        """
        return self.append_all([envelope])[0]

    @abstractmethod
    def append_all(self, envelopes: Sequence[Buffer]) -> list[Location]:
        """Write several envelopes durably, one behind the other in one pack. Raises as `append` does."""

    @abstractmethod
    def roll(self, pack_id: str) -> None:
        """Append nothing more to this pack."""

    @abstractmethod
    def take_whole(self) -> list[str]:
        """Return the growing packs that were finished since the last call.

        All their bytes are durable, and nothing follows the last envelope.
        """

    @abstractmethod
    def close(self) -> None:
        """Accept no more envelopes; finish those in flight. May be called twice."""
