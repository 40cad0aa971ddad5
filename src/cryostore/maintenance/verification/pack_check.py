"""Check of the packs against the catalog, both ways: places that rows point to, and envelopes without a row.

Only reads. A finding counts if a second read confirms it, because rows move and packs are deleted meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from cryostore.catalog.queries import damage
from cryostore.catalog.queries.damage import LocatedChunk
from cryostore.catalog.rows import chunks, keys, packs
from cryostore.catalog.rows.chunks import PlacedChunk
from cryostore.catalog.rows.packs import PackRow
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import EnvelopeHeader, open_envelope
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, decode_header
from cryostore.chunks.packs.reader import HEADERS_WINDOW_BYTES, WINDOW_BYTES, PackReader, PlacedEnvelope
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, StorageUnavailableError, UnknownFormatError
from cryostore.maintenance.claims import Progress
from cryostore.maintenance.verification import finding_kinds
from cryostore.maintenance.verification.finding_kinds import Findings
from cryostore.maintenance.verification.opened_keys import OpenedKeys
from cryostore.service import Context

ROWS_PER_PAGE = 1000
PACKS_PER_PAGE = 100


@dataclass
class PacksSeen:
    """The contents of packs. Garbage is whole envelopes that no row points to."""

    packs: int = 0
    chunks: int = 0
    garbage: int = 0
    garbage_bytes: int = 0


class PackCheck:
    """Checks all packs that the catalog knows.

    With `data`, envelopes are opened; without, only their headers are compared with the rows. `on_bad` is called for
    each place at which a row does not find its chunk, `on_sound` (only with `data`) for each chunk that is marked as
    damaged and proves sound.
    """

    def __init__(
        self,
        context: Context,
        findings: Findings,
        on_bad: Callable[[LocatedChunk], None] = lambda _: None,
        on_sound: Callable[[LocatedChunk], None] = lambda _: None,
        *,
        data: bool = False,
    ) -> None:
        self.seen = PacksSeen()
        self._context = context
        self._findings = findings
        self._on_bad = on_bad
        self._on_sound = on_sound
        self._data = data
        self._keys = OpenedKeys(context)

    def run(self) -> Iterator[Progress]:
        """Check each pack, step by step. Raises StorageUnavailableError if the catalog cannot be read."""
        after = 0
        while rows := self._context.database.read(partial(packs.not_retired, after=after, limit=PACKS_PER_PAGE)):
            for row in rows:
                yield Progress("packs", self.seen.packs)
                yield from self._check(row)
                self.seen.packs += 1
            after = rows[-1].pack_number

    def _check(self, pack: PackRow) -> Iterator[Progress]:
        store = self._context.store
        try:
            owned = store.is_owned(pack.name)  # asked first: a pack without a writer does not grow any more
            window_bytes = WINDOW_BYTES if self._data else HEADERS_WINDOW_BYTES
            reader = store.reader(pack.name, window_bytes=window_bytes)
            self._check_header(pack, reader)
            self._check_size(pack, reader)
        except BlobNotFoundError:
            yield from self._check_missing(pack)
            return
        except StorageUnavailableError as error:
            self._findings.add(finding_kinds.UNREADABLE, error.message)
            return
        yield from self._compare(pack, reader)
        self._check_tail(pack, owned=owned)

    def _check_header(self, pack: PackRow, reader: PackReader) -> None:
        try:
            name = decode_header(bytes(reader.range(0, PACK_HEADER_BYTES)))
        except DamagedDataError as error:
            self._findings.add(finding_kinds.PACK_HEADER, f"pack {pack.name}: {error.message}")
        else:
            if name != pack.name:
                self._findings.add(finding_kinds.PACK_HEADER, f"pack {pack.name} has the header of pack {name}")

    def _check_size(self, pack: PackRow, reader: PackReader) -> None:
        if self._context.store.packs_grow or pack.size_bytes in (None, reader.size):
            return
        words = f"pack {pack.name} had {pack.size_bytes} bytes and has {reader.size}"
        self._findings.add(finding_kinds.PACK_SIZE, words)

    def _check_missing(self, pack: PackRow) -> Iterator[Progress]:
        lost = 0
        for row in self._rows(pack):
            lost += self._is_bad(pack, row, report=False)
            yield Progress("packs", self.seen.packs)
        if lost:  # else it was empty, or all chunks have sound copies: garbage collection forgets it
            self._findings.add(finding_kinds.PACK_MISSING, f"pack {pack.name} with {lost} chunks")

    def _rows(self, pack: PackRow) -> Iterator[PlacedChunk]:
        offset = 0
        page = partial(chunks.all_in_pack, pack_number=pack.pack_number, limit=ROWS_PER_PAGE)
        while rows := self._context.database.read(partial(page, from_offset=offset)):
            yield from rows
            offset = rows[-1].pack_offset + 1

    def _compare(self, pack: PackRow, reader: PackReader) -> Iterator[Progress]:
        """Compare rows and envelopes side by side."""
        walk = _Walk(reader)
        for row in self._rows(pack):
            try:
                placed = walk.to(row.pack_offset)
            except (DamagedDataError, BlobNotFoundError, StorageUnavailableError):
                placed = None
            if placed is None or not self._fits(reader, row, placed):
                self._is_bad(pack, row)
            elif self._data and row.damaged_ms is not None and self._keys.of_number(row.key_number) is not None:
                self._on_sound(LocatedChunk(row.vault_id, row.digest, pack.pack_number, row.pack_offset))
            self.seen.chunks += 1
            yield Progress("packs", self.seen.packs)
        try:
            walk.to_end()
        except (BlobNotFoundError, DamagedDataError):
            return  # deleted or cut meanwhile
        except StorageUnavailableError as error:
            self._findings.add(finding_kinds.UNREADABLE, error.message)
        self.seen.garbage += walk.skipped
        self.seen.garbage_bytes += walk.skipped_bytes

    def _fits(self, reader: PackReader, row: PlacedChunk, placed: PlacedEnvelope) -> bool:
        """Whether the envelope is the one that the row means. Without the key, only sizes are compared."""
        key = self._keys.of_number(row.key_number)
        if not _is_meant(placed.header, row, key):
            return False
        if not self._data or key is None:
            return True
        try:
            open_envelope(reader.range(row.pack_offset, row.sealed_length), key, row.digest, row.length)
        except (DamagedDataError, BlobNotFoundError, StorageUnavailableError):
            return False
        return True

    def _is_bad(self, pack: PackRow, row: PlacedChunk, *, report: bool = True) -> bool:
        """Read the place a second time, alone. If the row still points there and the chunk is bad, report it."""
        error: DamagedDataError | None = None
        kind = finding_kinds.CHUNK_DAMAGED
        try:
            self._read_again(pack, row)
        except UnknownFormatError as unknown:
            self._findings.add(finding_kinds.PACK_HEADER, f"pack {pack.name} at {row.pack_offset}: {unknown.message}")
            return False
        except _MisplacedError as misplaced:
            error, kind = misplaced, finding_kinds.CHUNK_MISPLACED
        except DamagedDataError as damaged:
            error = damaged
        except BlobNotFoundError:
            error = DamagedDataError("the pack is missing")
        except StorageUnavailableError as failure:
            self._findings.add(finding_kinds.UNREADABLE, f"pack {pack.name} at {row.pack_offset}: {failure.message}")
            return False
        place = LocatedChunk(row.vault_id, row.digest, pack.pack_number, row.pack_offset)
        if error is None or not self._context.database.read(partial(damage.stands, chunk=place)):
            return False
        self._on_bad(place)
        if report and row.damaged_ms is None:  # marked chunks are counted as such
            self._findings.add(kind, f"pack {pack.name} at {row.pack_offset}: {error.message}")
        return True

    def _read_again(self, pack: PackRow, row: PlacedChunk) -> None:
        """Raise DamagedDataError if the bytes of the chunk are damaged, _MisplacedError if others lie there."""
        reader = self._context.store.reader(pack.name, window_bytes=HEADERS_WINDOW_BYTES)
        key = self._keys.of_number(row.key_number)
        if not _is_meant(reader.header(row.pack_offset), row, key):
            raise _MisplacedError("another envelope is stored there")
        if self._data and key is not None:
            open_envelope(reader.range(row.pack_offset, row.sealed_length), key, row.digest, row.length)

    def _check_tail(self, pack: PackRow, *, owned: bool) -> None:
        """Report bytes after the last envelope that no row points to, unless a process writes to the pack."""
        if owned:
            return
        keep_bytes = self._context.database.read(partial(chunks.last_end, pack_number=pack.pack_number))
        try:
            size = self._context.store.torn_tail_bytes(pack.name, keep_bytes=keep_bytes)
        except (BlobNotFoundError, DamagedDataError):
            return
        except StorageUnavailableError as error:
            self._findings.add(finding_kinds.UNREADABLE, error.message)
            return
        if size:
            self._findings.add(finding_kinds.TORN_TAIL, f"pack {pack.name}, {size} bytes")

    def report_missing_keys(self) -> None:
        """Report the keys that could not be opened."""
        for number, reason in self._keys.missing.items():
            if self._context.database.read(partial(keys.is_vault_key_used, key_number=number)):
                self._findings.add(finding_kinds.NO_KEY, f"data key {number}: {reason}")


def _is_meant(header: EnvelopeHeader, row: PlacedChunk, key: DataKey | None) -> bool:
    if (header.envelope_bytes, header.payload_bytes) != (row.sealed_length, row.length):
        return False
    return key is None or (header.key_id == key.key_id and header.digest(key) == row.digest)


class _MisplacedError(DamagedDataError):
    """Another envelope is stored at the place of the row."""


class _Walk:
    """The envelopes of a pack in order, with a count of those that no row asked for."""

    def __init__(self, reader: PackReader) -> None:
        self.skipped = 0
        self.skipped_bytes = 0
        self._envelopes = reader.walk()
        self._here: PlacedEnvelope | None = None
        self._wanted = True

    def to(self, offset: int) -> PlacedEnvelope | None:
        """Return the envelope that begins at `offset`; skip those before it. None if there is none."""
        while self._here is None or self._here.offset < offset:
            self._skip()
            if (here := next(self._envelopes, None)) is None:
                self._here = None
                return None
            self._here, self._wanted = here, False
        self._wanted = self._wanted or self._here.offset == offset
        return self._here if self._here.offset == offset else None

    def to_end(self) -> None:
        """Skip the remaining envelopes."""
        self._skip()
        for placed in self._envelopes:
            self._here, self._wanted = placed, False
            self._skip()

    def _skip(self) -> None:
        if self._here is not None and not self._wanted:
            self.skipped += 1
            self.skipped_bytes += self._here.header.envelope_bytes
        self._wanted = True
