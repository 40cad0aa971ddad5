"""Reading a whole pack: in large steps, in little memory, and telling damage from envelopes.

In this module: the walk over the envelopes of one pack. It needs no key, because it does not open them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cryostore.chunks.blobs import BlobStore
from cryostore.chunks.envelope import HEADER_BYTES, MAGIC, EnvelopeHeader
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, pack_key
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, StorageUnavailableError, UnknownFormatError
from cryostore.core.limits import KIB, MIB

WINDOW_BYTES = 8 * MIB
"""How much is read at once when a whole pack is read."""
HEADERS_WINDOW_BYTES = 16 * KIB
"""How much is read at once when only headers are needed: small envelopes share a read, large ones are skipped."""


class PlacedEnvelope(NamedTuple):
    """The offset and header of a whole envelope in a pack. It was not opened yet."""

    offset: int
    header: EnvelopeHeader

    @property
    def end(self) -> int:
        """Where the next envelope may begin."""
        return self.offset + self.header.envelope_bytes


class PackReader:
    """Ranges of one pack, read in windows: a range within the last window costs nothing.

    `size` is the size of the pack when the reader was created; it does not see later appends. Raises BlobNotFoundError
    if the pack does not exist, here and in each method; StorageUnavailableError.
    """

    def __init__(self, blobs: BlobStore, pack_id: str, *, window_bytes: int = WINDOW_BYTES) -> None:
        self.pack_id = pack_id
        self._blobs = blobs
        self._key = pack_key(pack_id)
        size = blobs.stat(self._key)
        if size is None:
            raise BlobNotFoundError(f"pack {pack_id} does not exist")
        self.size = size
        self.later_formats = 0
        """Number of envelopes of a later format that walks have met; this version cannot tell where they end."""
        self._window_bytes = window_bytes
        self._start = 0
        self._window = b""

    def range(self, offset: int, length: int) -> memoryview:
        """Return a range of bytes. Raises DamagedDataError if the pack ends before it does."""
        self._fill(offset, length)
        return memoryview(self._window)[offset - self._start : offset - self._start + length]

    def header(self, offset: int) -> EnvelopeHeader:
        """Return the header of the envelope at an offset. Raises DamagedDataError if there is no whole one."""
        self._fill(offset, HEADER_BYTES)
        header = EnvelopeHeader.decode(self._window, offset - self._start)
        if offset + header.envelope_bytes > self.size:
            raise DamagedDataError("an envelope is cut short")
        return header

    def walk(self, offset: int = PACK_HEADER_BYTES) -> Iterator[PlacedEnvelope]:
        """Yield every whole envelope from `offset` on, in order. Skips other bytes and a torn tail."""
        while (found := self._next(offset)) is not None:
            yield found
            offset = found.end

    def _next(self, offset: int) -> PlacedEnvelope | None:
        """Return the first whole envelope at `offset` or later."""
        while offset + HEADER_BYTES <= self.size:
            try:
                return PlacedEnvelope(offset, self.header(offset))
            except UnknownFormatError:
                self.later_formats += 1
            except DamagedDataError:
                pass
            offset = self._find_magic(offset + 1)
        return None

    def _find_magic(self, offset: int) -> int:
        """Return where the next envelope may begin; the size of the pack if nowhere."""
        while offset + HEADER_BYTES <= self.size:
            self._fill(offset, HEADER_BYTES)
            place = self._window.find(MAGIC, offset - self._start)
            if place >= 0:
                return self._start + place
            offset = self._start + len(self._window) - len(MAGIC) + 1
        return self.size

    def _fill(self, offset: int, length: int) -> None:
        """Load the range into the window. Raises DamagedDataError if the pack ends before it does."""
        if self._start <= offset and offset + length <= self._start + len(self._window):
            return
        if offset < 0 or offset + length > self.size:
            raise DamagedDataError(f"the pack ends at {self.size}, before the range {offset}..{offset + length}")
        wanted = min(max(length, self._window_bytes), self.size - offset)
        self._window, self._start = b"", offset  # the old window goes first: two would be held at once
        try:
            self._window = self._blobs.get(self._key, offset, wanted)
        except (StorageUnavailableError, DamagedDataError):
            if wanted == length:
                raise
            self._window = self._blobs.get(self._key, offset, length)  # one bad sector hides no more than it must
