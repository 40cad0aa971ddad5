"""Reading and checking of blobs that are copied from one store to another.

Damage neither stops a migration nor is hidden by it: bytes are copied as they are, and damage that a second read does
not fix is reported. A block that the disk cannot read is replaced by zeros. `blobs` decides what follows from it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from cryostore.catalog.queries.damage import LocatedChunk
from cryostore.catalog.queries.store_copy import NamedPack
from cryostore.catalog.rows import chunks, keys
from cryostore.catalog.rows.chunks import PlacedChunk
from cryostore.catalog.rows.records import COMMIT
from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import open_envelope
from cryostore.chunks.keyring import Keyring
from cryostore.chunks.packs.format import pack_key
from cryostore.chunks.records import RecordName, Records
from cryostore.core.digest import Buffer
from cryostore.core.errors import (
    BlobNotFoundError,
    DamagedDataError,
    KeyUnavailableError,
    StorageUnavailableError,
    UnknownFormatError,
)
from cryostore.core.limits import KIB
from cryostore.maintenance.migrate.side import Side
from cryostore.service.vault_keys import VaultKeys

ROWS_PER_PAGE = 1000
SALVAGED_BYTES = 4 * KIB
"""The size of the block that is given up where the disk cannot read a blob."""


class BlobVerdict(NamedTuple):
    """The result of checking a blob: its damaged chunks, how many could not be checked, or the problem of a record."""

    damaged: list[LocatedChunk]
    unjudged: int = 0
    flaw: str = ""


class Envelopes:
    """Reads and checks the blobs of a source. Thread-safe."""

    def __init__(self, source: Side, keyring: Keyring) -> None:
        self._source = source
        self._keyring = keyring
        self._keys = VaultKeys(source, keyring)

    def read(self, key: str, size: int) -> bytearray:
        """Return a whole blob, with zeros where the disk reports a permanent read error.

        Raises BlobNotFoundError; StorageUnavailableError for errors that may be temporary.
        """
        try:
            return bytearray(self._source.get(key))
        except StorageUnavailableError as error:
            if not _is_lost(error):
                raise
        data = bytearray(size)
        for offset in range(0, size, SALVAGED_BYTES):
            length = min(SALVAGED_BYTES, size - offset)
            try:
                data[offset : offset + length] = self._source.get(key, offset, length)
            except StorageUnavailableError as error:
                if not _is_lost(error):
                    raise
        return data

    def check_pack(self, pack: NamedPack, data: bytearray) -> BlobVerdict:
        """Open every envelope that a row points to. One that cannot be opened is read again, alone, into `data`."""
        damaged: list[LocatedChunk] = []
        unjudged = 0
        for row in self._rows(pack):
            key = self._key(row.key_number)
            if key is None:
                unjudged += 1
                continue
            try:
                if not _opens(memoryview(data)[row.pack_offset : row.end], key, row):
                    again = self._read_again(pack, row)
                    if again is None or not _opens(again, key, row):
                        damaged.append(LocatedChunk(row.vault_id, row.digest, pack.pack_number, row.pack_offset))
                    else:
                        data[row.pack_offset : row.end] = again
            except UnknownFormatError:
                unjudged += 1
        return BlobVerdict(damaged, unjudged)

    def missing_pack(self, pack: NamedPack) -> BlobVerdict:
        """Return all chunks of a missing pack as damaged."""
        return BlobVerdict(
            [LocatedChunk(row.vault_id, row.digest, pack.pack_number, row.pack_offset) for row in self._rows(pack)]
        )

    def check_record(self, name: RecordName, data: Buffer) -> BlobVerdict:
        """Check a part of a record by opening it."""
        held = open_blobs("memory:")
        held.put(name.key, data)
        records = Records(held, self._keyring)
        try:
            if name.noun == COMMIT:
                records.get(name, self._key_of)
            else:
                records.get_wrapped(name)
        except (KeyUnavailableError, UnknownFormatError):
            return BlobVerdict([], unjudged=1)
        except DamagedDataError as error:
            return BlobVerdict([], flaw=error.message)
        return BlobVerdict([])

    def _rows(self, pack: NamedPack) -> Iterator[PlacedChunk]:
        offset = 0
        page = partial(chunks.all_in_pack, pack_number=pack.pack_number, limit=ROWS_PER_PAGE)
        while rows := self._source.read(partial(page, from_offset=offset)):
            yield from rows
            offset = rows[-1].pack_offset + 1

    def _key(self, key_number: int) -> DataKey | None:
        try:
            return self._keys.opening(key_number)
        except KeyUnavailableError:
            return None

    def _key_of(self, key_id: bytes) -> DataKey | None:
        owner = self._source.read(partial(keys.vault_key_owner, key_id=key_id))
        return None if owner is None else self._key(owner[0])

    def _read_again(self, pack: NamedPack, row: PlacedChunk) -> bytes | None:
        """Read the envelope of a row alone. Returns None if it is missing or lost."""
        try:
            return self._source.get(pack_key(pack.name), row.pack_offset, row.sealed_length)
        except (BlobNotFoundError, DamagedDataError):
            return None
        except StorageUnavailableError as error:
            if not _is_lost(error):
                raise
            return None


def _opens(envelope: Buffer, key: DataKey, row: PlacedChunk) -> bool:
    """Whether an envelope opens to the chunk of a row. Raises UnknownFormatError."""
    try:
        open_envelope(envelope, key, row.digest, row.length)
    except UnknownFormatError:
        raise
    except DamagedDataError:
        return False
    return True


def _is_lost(error: BaseException | None) -> bool:
    """Whether the disk reports a read error (EIO), which is permanent, unlike an outage."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno == errno.EIO
        error = error.__cause__
    return False
