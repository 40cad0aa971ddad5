"""Records: sealed blobs that repeat what the catalog says, so that a lost catalog can be rebuilt.

Byte table: docs/reference/formats.md, "Record". In this module: their names and their sealed form. Not here: their
content (`service.recording`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cryostore.chunks.blobs import BlobStore
from cryostore.chunks.cipher import DataKey, Salts
from cryostore.chunks.envelope import EnvelopeHeader, PayloadKind, open_envelope, seal
from cryostore.chunks.keyring import Keyring, wrapped_key_id
from cryostore.core.digest import Payload
from cryostore.core.errors import DamagedDataError, KeyUnavailableError

PREFIX = "records/"
CONTEXT = b"record\0"
NAME_PATTERN = re.compile(r"records/([a-z]+)/(\d{19})\.(\d{19})\.(\d{10})\.(\d{8})", re.ASCII)


class RecordName(NamedTuple):
    """The name of one part of a record. Of a noun's finished records the one with the highest `change` is valid."""

    noun: str
    number: int
    generation: int
    change: int
    part: int

    @property
    def key(self) -> str:
        """The blob key. Numbers have leading zeros, so that listings are in order."""
        return f"{PREFIX}{self.noun}/{self.number:019d}.{self.generation:019d}.{self.change:010d}.{self.part:08d}"


class Records:
    """Sealed records on a blob store. Safe to call from many threads; the caller closes the blob store.

    A record is written once, part by part, and is not read until its last part exists. Each part is bound to its name,
    so that no part can replace another.
    """

    def __init__(self, blobs: BlobStore, keyring: Keyring) -> None:
        self._blobs = blobs
        self._keyring = keyring
        self._salts = Salts()

    def put(self, name: RecordName, data: bytes, key: DataKey) -> None:
        """Seal a part with a vault's data key and store it durably.

        Raises BlobExistsError, StorageUnavailableError.
        """
        payload = Payload(name.key.encode() + b"\0" + data)
        self._blobs.put(name.key, seal(payload, key, salt=self._salts.current(), kind=PayloadKind.RECORD))

    def put_wrapped(self, name: RecordName, data: bytes) -> None:
        """As `put`, with the active master key: for data keys, and for data that belongs to no vault.

        Also raises KeyUnavailableError.
        """
        self._blobs.put(name.key, self._keyring.active().wrap(data, CONTEXT + name.key.encode()))

    def get(self, name: RecordName, key_of: Callable[[bytes], DataKey | None]) -> bytes:
        """Return the data of a sealed part. `key_of` returns the data key of an id.

        Raises DamagedDataError, KeyUnavailableError if `key_of` has no key, BlobNotFoundError, StorageUnavailableError.
        """
        envelope = self._blobs.get(name.key)
        header = EnvelopeHeader.decode(envelope)
        key = key_of(header.key_id)
        if key is None:
            raise KeyUnavailableError(f"{name.key} is sealed with data key {header.key_id.hex()}, which is not there")
        payload = bytes(open_envelope(envelope, key, header.digest(key), header.payload_bytes))
        label = name.key.encode() + b"\0"
        if header.kind != PayloadKind.RECORD or not payload.startswith(label):
            raise DamagedDataError(f"{name.key} holds different data")
        return payload[len(label) :]

    def get_wrapped(self, name: RecordName) -> bytes:
        """Return the data of a wrapped part.

        Raises as `get`, and KeyUnavailableError if the keyring lacks the master key.
        """
        wrapped = self._blobs.get(name.key)
        try:
            key_id = wrapped_key_id(wrapped)
        except KeyUnavailableError as error:
            raise DamagedDataError(f"{name.key}: {error.message}") from error
        key = self._keyring.key(key_id)
        try:
            return key.unwrap(wrapped, CONTEXT + name.key.encode())
        except KeyUnavailableError as error:
            raise DamagedDataError(f"{name.key}: {error.message}") from error

    def has(self, name: RecordName) -> bool:
        """Whether this part exists."""
        return self._blobs.stat(name.key) is not None

    def holds(self, noun: str, number: int, generation: int) -> bool:
        """Whether any part of any record of a noun exists."""
        of_noun = RecordName(noun, number, generation, 0, 0).key.rsplit(".", 2)[0]
        return next(self._blobs.list(f"{of_noun}."), None) is not None

    def wrapped(self, name: RecordName) -> bytes:
        """Return a wrapped part as it is stored, to find out which master key wrapped it."""
        return self._blobs.get(name.key)

    def names(self, noun: str | None = None) -> Iterator[RecordName]:
        """Yield the names of all parts, of one noun or of all, in order. Skips other blobs."""
        for key in self._blobs.list(f"{PREFIX}{noun}/" if noun else PREFIX):
            if (match := NAME_PATTERN.fullmatch(key)) is not None:
                yield RecordName(match[1], *map(int, match.groups()[1:]))

    def delete(self, name: RecordName) -> None:
        """Delete a part durably; absent is not an error."""
        self._blobs.delete(name.key)
