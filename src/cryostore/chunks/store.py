"""The chunk store: stores payloads and returns durable locations, and reads them back.

It combines envelopes, packs and blobs. Rule of this file: it returns a location only for durable bytes, and returns
only bytes that equal those that were put.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from cryostore.chunks.blobs import Appendable, BlobStore, Caching
from cryostore.chunks.cipher import DataKey, Salts
from cryostore.chunks.envelope import PayloadKind, open_envelope, seal, unseal
from cryostore.chunks.packs.format import list_packs, pack_key
from cryostore.chunks.packs.growing import GrowingPackWriter
from cryostore.chunks.packs.immutable import ImmutablePackWriter
from cryostore.chunks.packs.reader import WINDOW_BYTES, PackReader
from cryostore.chunks.packs.recovery import cut_torn_tail, make_durable, torn_tail
from cryostore.chunks.packs.writer import PACK_BYTES_TARGET, Location, PackWriter
from cryostore.core.compression import Codec, CompressedPayload
from cryostore.core.digest import Payload
from cryostore.core.errors import BlobNotFoundError, DamagedDataError
from cryostore.core.ids import NewId

__all__ = ["ChunkStore", "Location"]

LOOKS_MAX = 16
"""How many packs that do not grow are looked up at a time: each lookup is a request across the network."""


class ChunkStore:
    """Sealed payloads in packs on a blob store. Safe to call from many threads; several processes may share `blobs`.

    `new_id` names packs and must return UUIDs. The caller closes the blob store.
    """

    def __init__(self, blobs: BlobStore, new_id: NewId, *, pack_bytes_target: int = PACK_BYTES_TARGET) -> None:
        self._blobs = blobs
        self.pack_bytes_target = pack_bytes_target
        self.packs_grow = isinstance(blobs, Appendable)
        """Whether a pack may grow after the first location in it was returned. Otherwise each pack is put whole."""
        self._packs: PackWriter
        if isinstance(blobs, Appendable):
            self._packs = GrowingPackWriter(blobs, new_id, pack_bytes_target=pack_bytes_target)
        else:
            self._packs = ImmutablePackWriter(blobs, new_id, pack_bytes_target=pack_bytes_target)
        self._salts = Salts()

    def put(self, payload: Payload, key: DataKey, kind: PayloadKind = PayloadKind.CHUNK) -> Location:
        """Seal a payload and store it durably. `payload.sha256` must be its true digest.

        The same payload twice is stored twice: the caller deduplicates. Holds about three times the payload in memory.
        Raises StorageFullError or another StorageUnavailableError; a later call may succeed.
        """
        return self._packs.append(seal(payload, key, salt=self._salts.current(), kind=kind))

    def get(self, location: Location, key: DataKey, digest: bytes, length: int) -> bytes | bytearray:
        """Return the payload of this digest and length at `location`.

        Raises DamagedDataError, which names the location, if the pack is missing or its bytes are not those that were
        put; StorageUnavailableError if they cannot be read now.
        """
        with self._placed(location):
            return open_envelope(self._envelope(location), key, digest, length)

    def get_compressed(self, location: Location, key: DataKey, digest: bytes, length: int) -> Payload:
        """As `get`, but return a compressed payload compressed: it is authenticated, and the reader decompresses it."""
        with self._placed(location):
            codec, body = unseal(self._envelope(location), key, digest, length)
        return CompressedPayload(body, sha256=digest) if codec == Codec.ZSTD else Payload(body, sha256=digest)

    def envelope(self, location: Location, key: DataKey, digest: bytes, length: int) -> bytes:
        """Return the envelope at `location` after proving that it holds the payload of this digest. Raises as `get`."""
        with self._placed(location):
            envelope = self._envelope(location)
            open_envelope(envelope, key, digest, length)
            return envelope

    def append(self, envelopes: Sequence[bytes]) -> list[Location]:
        """Store existing envelopes unchanged and durably. Raises as `put`."""
        return self._packs.append_all(envelopes)

    def roll(self, pack_id: str) -> None:
        """Write nothing more to this pack, if this process writes it."""
        self._packs.roll(pack_id)

    def close_pack(self, pack_id: str, *, keep_bytes: int = 0) -> bool:
        """Return whether nothing will be written to the pack any more; then cut its torn tail behind `keep_bytes`.

        True without a lookup for packs that do not grow. Raises BlobNotFoundError.
        """
        if not isinstance(self._blobs, Appendable):
            return True
        if self._blobs.owned(pack_key(pack_id)):
            return False
        cut_torn_tail(self._blobs, pack_id, keep_bytes=keep_bytes)
        return True

    def pack_bytes(self, pack_id: str) -> int | None:
        """Return the size of the pack, None if it does not exist."""
        return self._blobs.stat(pack_key(pack_id))

    def pack_sizes(self, pack_ids: Sequence[str]) -> list[int | None]:
        """Return the size of each pack, None if it does not exist. Takes little more time than the slowest lookup."""
        if self.packs_grow:
            return [self.pack_bytes(pack_id) for pack_id in pack_ids]
        with ThreadPoolExecutor(LOOKS_MAX) as pool:
            return list(pool.map(self.pack_bytes, pack_ids))

    def pack_ids(self) -> Iterator[str]:
        """Yield all packs that exist, whether the catalog knows them or not."""
        return list_packs(self._blobs)

    def reader(self, pack_id: str, *, window_bytes: int = WINDOW_BYTES) -> PackReader:
        """Return a reader for a whole pack. Raises BlobNotFoundError."""
        return PackReader(self._blobs, pack_id, window_bytes=window_bytes)

    def is_owned(self, pack_id: str) -> bool:
        """Whether a live process still writes to the pack. Raises BlobNotFoundError."""
        return isinstance(self._blobs, Appendable) and self._blobs.owned(pack_key(pack_id))

    def make_durable(self, pack_id: str) -> bool:
        """Make all bytes of a pack durable; return False if its writer is alive. Raises BlobNotFoundError.

        A process that died, or whose flush failed, leaves bytes that can be read and may be lost all the same.
        """
        return make_durable(self._blobs, pack_id)

    def torn_tail_bytes(self, pack_id: str, *, keep_bytes: int = 0) -> int:
        """Return how many bytes `cut_torn_tail` would cut. Raises BlobNotFoundError."""
        begin, end = torn_tail(self._blobs, pack_id, keep_bytes=keep_bytes)
        return end - begin

    def cut_torn_tail(self, pack_id: str, *, keep_bytes: int = 0) -> int:
        """Cut the torn tail of a pack that has no writer, unless the tail begins before `keep_bytes`.

        Return how many bytes were cut. Raises BlobNotFoundError.
        """
        return cut_torn_tail(self._blobs, pack_id, keep_bytes=keep_bytes)

    def delete_pack(self, pack_id: str) -> None:
        """Delete a pack that nothing refers to; absent is not an error."""
        self._blobs.delete(pack_key(pack_id))

    def forget_deleted(self) -> None:
        """Close packs that another process has deleted. Harmless at any time."""
        if isinstance(self._blobs, Caching):
            self._blobs.forget_deleted()

    def _envelope(self, location: Location) -> bytes:
        return self._blobs.get(pack_key(location.pack_id), location.offset, location.length)

    @staticmethod
    @contextmanager
    def _placed(location: Location) -> Iterator[None]:
        """Add the location to errors about damage."""
        try:
            yield
        except (BlobNotFoundError, DamagedDataError) as error:
            place = f"pack {location.pack_id} at {location.offset}, {location.length} bytes"
            raise DamagedDataError(f"{place}: {error.message}") from error

    def take_whole(self) -> list[str]:
        """Return the growing packs that this process finished since the last call: they have no torn tail."""
        return self._packs.take_whole()

    def close(self) -> None:
        """Finish the open pack. May be called twice."""
        self._packs.close()
