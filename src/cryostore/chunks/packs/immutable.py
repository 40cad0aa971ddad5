"""Pack writer for blob stores in which blobs cannot grow: each flush puts one whole pack.

Rules: a location is returned only after the put of its blob. A failed put fails the envelopes in it and no others. The
name of its pack is never used again, so that bytes that arrive late are garbage and do no other harm.

Envelopes gather by size, because a blob per small envelope costs more than the envelope, and garbage collection later
merges packs that are too small, which reads and writes each of their envelopes again:

- Whole ones (`WHOLE_BYTES_MIN` and more) are worth a blob each. They are put at once while fewer than `puts_max` puts
  are in flight; beyond that the next ones gather and share a blob.
- Half ones (`EAGER_BYTES_MIN` and more) gather behind four puts in flight.
- Small ones gather behind two.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cryostore.chunks.blobs import BlobStore, Gathering
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, encode_header, pack_key
from cryostore.chunks.packs.writer import EAGER_BYTES_MIN, PACK_BYTES_TARGET, Append, GroupFlush, Location, PackWriter
from cryostore.core.digest import Buffer
from cryostore.core.errors import CryostoreError, StorageUnavailableError
from cryostore.core.ids import NewId
from cryostore.core.limits import MIB

PUTS_MAX = 16
HALF_PUTS_MAX = 4
SMALL_PUTS_MAX = 2
WHOLE_BYTES_MIN = 2 * MIB
"""A blob of this size stands alone: merging it with others costs more than it saves."""


class ImmutablePackWriter(PackWriter):
    """Puts whole packs. Safe to call from many threads."""

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

    def append_all(self, envelopes: Sequence[Buffer]) -> list[Location]:
        """See PackWriter."""
        if self._closed:
            raise StorageUnavailableError("the chunk store is closed")
        append = Append(envelopes, sum(map(len, envelopes)))
        self._group_of(append).join(append)
        return append.locations()

    def roll(self, pack_id: str) -> None:
        """See PackWriter. Does nothing: a pack that was put never grows."""

    def take_whole(self) -> list[str]:
        """See PackWriter. None grows here."""
        return []

    def close(self) -> None:
        """See PackWriter."""
        self._closed = True

    def _group_of(self, append: Append) -> GroupFlush[Append]:
        if append.length >= WHOLE_BYTES_MIN:
            return self._whole
        return self._half if append.length >= EAGER_BYTES_MIN else self._small

    def _has_room(self, appends: Sequence[Append], append: Append) -> bool:
        """Whether the pack of these appends stays within the target size with one more."""
        return sum(other.length for other in appends) + append.length <= self._pack_bytes_target

    def _put(self, appends: Sequence[Append]) -> None:
        pack_id = self._new_id()
        buffers = [encode_header(pack_id), *(envelope for append in appends for envelope in append.envelopes)]
        try:
            self._put_all(pack_key(pack_id), buffers)
        except CryostoreError as failure:
            for append in appends:
                append.failure = failure
            return
        pack_bytes = sum(map(len, buffers))
        offset = PACK_HEADER_BYTES
        for append in appends:
            append.pack_id, append.offset, append.pack_bytes = pack_id, offset, pack_bytes
            offset += append.length


def _put_joined(blobs: BlobStore, key: str, buffers: Sequence[Buffer]) -> None:
    blobs.put(key, b"".join(buffers))
