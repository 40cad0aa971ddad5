"""Reading a pack from end to end: in large steps, in little memory, with damage told from envelopes.

Lives here: the walk over the envelopes of one pack. Writing packs: `pack_writer.py`. What an envelope holds is nobody's
business here: no key is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cryostore.chunks.blobs import BlobStore
from cryostore.chunks.envelope import HEADER_BYTES, MAGIC, Header
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, pack_key
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, StorageUnavailableError, UnknownFormatError
from cryostore.core.limits import KIB, MIB

WINDOW_BYTES = 8 * MIB
"""How much is read at once by whoever reads all of a pack."""
HEADERS_WINDOW_BYTES = 16 * KIB
"""How much is read at once by whoever reads headers only: small envelopes then share a read, large ones are skipped."""


class PlacedEnvelope(NamedTuple):
    """A whole envelope in a pack, by its header; nobody has opened it yet."""

    offset: int
    header: Header

    @property
    def end(self) -> int:
        """Where the next envelope may begin."""
        return self.offset + self.header.envelope_bytes


class PackReader:
    """Ranges of one pack, read in windows: a range that lies in the window read last costs nothing.

    `size` is that of the pack when the reader was made; what is appended later is not seen. Raises BlobNotFoundError if
    the pack does not exist, and each method if it no longer does; StorageUnavailableError.
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
        """How many envelopes of a later format walks have met; nobody here knows where these end."""
        self._window_bytes = window_bytes
        self._start = 0
        self._window = b""

    def range(self, offset: int, length: int) -> memoryview:
        """So many bytes. DamagedDataError if the pack ends before."""
        self._fill(offset, length)
        return memoryview(self._window)[offset - self._start : offset - self._start + length]

    def header(self, offset: int) -> Header:
        """The header of the envelope at a place. DamagedDataError if there is none, or the pack ends before it does."""
        self._fill(offset, HEADER_BYTES)
        header = Header.decode(self._window, offset - self._start)
        if offset + header.envelope_bytes > self.size:
            raise DamagedDataError("an envelope is cut short")
        return header

    def walk(self, offset: int = PACK_HEADER_BYTES) -> Iterator[PlacedEnvelope]:
        """Every whole envelope from `offset` on, in order. What is none is passed over, and so is a torn tail."""
        while (found := self._next(offset)) is not None:
            yield found
            offset = found.end

    def _next(self, offset: int) -> PlacedEnvelope | None:
        """The first whole envelope at `offset` or behind it."""
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
        """Where the next envelope may begin; the pack's size if nowhere."""
        while offset + HEADER_BYTES <= self.size:
            self._fill(offset, HEADER_BYTES)
            place = self._window.find(MAGIC, offset - self._start)
            if place >= 0:
                return self._start + place
            offset = self._start + len(self._window) - len(MAGIC) + 1
        return self.size

    def _fill(self, offset: int, length: int) -> None:
        """Have the range in the window. DamagedDataError if the pack ends before it does."""
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
