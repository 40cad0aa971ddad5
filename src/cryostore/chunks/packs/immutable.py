"""Packs as immutable blobs: each flush is one, put whole, for stores in which blobs cannot grow.

Rules: a location is given out only when the blob that holds it was put. A put that failed fails the envelopes in it and
nobody else; its pack's name is never used again, so that whatever arrives late is garbage and nothing else.

A whole envelope, one that is worth a blob of its own, goes at once while fewer than `puts_max` are on their way; when
as many are, the next ones gather and share one. Half ones would be merged by a later collection, which is another read
and write of each: they gather behind four puts, so that they lie together from the beginning where many come at a time.
Small ones gather behind two: a blob each would cost more than they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from cryostore.chunks.blobs import BlobStore, Gathering
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, encode_header, pack_key
from cryostore.chunks.packs.group_flush import GroupFlush
from cryostore.chunks.packs.growing import EAGER_BYTES_MIN, PACK_BYTES_TARGET, Location, failed
from cryostore.core.digest import Buffer
from cryostore.core.errors import CryostoreError, StorageUnavailableError
from cryostore.core.ids import NewId
from cryostore.core.limits import MIB

PUTS_MAX = 16
HALF_PUTS_MAX = 4
SMALL_PUTS_MAX = 2
WHOLE_BYTES_MIN = 2 * MIB
"""A blob of so many bytes stands alone: to merge it with others costs more than it saves."""


@dataclass(slots=True, eq=False)
class _Entry:
    """Envelopes on their way into a pack, one behind the other."""

    envelopes: Sequence[Buffer]
    length: int
    pack_id: str = ""
    offset: int = 0
    pack_bytes: int = 0
    failure: CryostoreError | None = None


class ImmutablePackWriter:
    """Puts envelopes in packs. Safe to call from many threads. The methods of PackWriter."""

    def __init__(
        self,
        blobs: BlobStore,
        new_id: NewId,
        *,
        pack_bytes_target: int = PACK_BYTES_TARGET,
        puts_max: int = PUTS_MAX,
    ) -> None:
        self._put_all = blobs.put_all if isinstance(blobs, Gathering) else partial(_put_joined, blobs)
        self._new_id = new_id
        self._pack_bytes_target = pack_bytes_target
        self._closed = False
        self._whole = GroupFlush(self._put, flushes_max=puts_max, has_room=self._has_room)
        self._half = GroupFlush(self._put, flushes_max=min(HALF_PUTS_MAX, puts_max), has_room=self._has_room)
        self._small = GroupFlush(self._put, flushes_max=min(SMALL_PUTS_MAX, puts_max), has_room=self._has_room)

    def append(self, envelope: Buffer) -> Location:
        """Put an envelope; return where it lies, once it is durable.

        Raises StorageFullError or another StorageUnavailableError; then the envelope counts as not written, and a
        later call may work again.
        """
        return self.append_all([envelope])[0]

    def append_all(self, envelopes: Sequence[Buffer]) -> list[Location]:
        """As `append`, for envelopes that lie together and share one pack."""
        if self._closed:
            raise StorageUnavailableError("the chunk store is closed")
        entry = _Entry(envelopes, sum(map(len, envelopes)))
        self._group_of(entry).join(entry)
        if entry.failure is not None:
            raise failed(entry.failure) from entry.failure
        ends = accumulate(map(len, envelopes), initial=entry.offset)
        return [
            Location(entry.pack_id, start, len(envelope), entry.pack_bytes)
            for start, envelope in zip(ends, envelopes, strict=False)
        ]

    def roll(self, pack_id: str) -> None:
        """Append nothing more to this pack: nothing ever is."""

    def close(self) -> None:
        """Take no more envelopes; those on their way are still finished. May be called twice."""
        self._closed = True

    def _group_of(self, entry: _Entry) -> GroupFlush[_Entry]:
        if entry.length >= WHOLE_BYTES_MIN:
            return self._whole
        return self._half if entry.length >= EAGER_BYTES_MIN else self._small

    def _has_room(self, entries: Sequence[_Entry], entry: _Entry) -> bool:
        """Whether a pack of these may take one more."""
        return sum(other.length for other in entries) + entry.length <= self._pack_bytes_target

    def _put(self, entries: Sequence[_Entry]) -> None:
        pack_id = self._new_id()
        buffers = [encode_header(pack_id), *(envelope for entry in entries for envelope in entry.envelopes)]
        try:
            self._put_all(pack_key(pack_id), buffers)
        except CryostoreError as failure:
            for entry in entries:
                entry.failure = failure
            return
        pack_bytes = sum(map(len, buffers))
        offset = PACK_HEADER_BYTES
        for entry in entries:
            entry.pack_id, entry.offset, entry.pack_bytes = pack_id, offset, pack_bytes
            offset += entry.length


def _put_joined(blobs: BlobStore, key: str, buffers: Sequence[Buffer]) -> None:
    blobs.put(key, b"".join(buffers))
