"""Format of records: what the record of the store, of a vault and of a commit says, as MessagePack.

The fields are in docs/reference/formats.md. Their sealed form is in `chunks.records`.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from cryostore.core.errors import ConfigurationError, DamagedDataError

FORMAT = 1
"""The first byte of every record. A reader refuses any other value."""


class StoreRecord(msgspec.Struct):
    """The record of the store: rows of `access_key`, by column."""

    access_keys: list[dict[str, Any]]


class VaultRecord(msgspec.Struct):
    """The record of a vault: its row, and those of its data keys, by column."""

    vault: dict[str, Any]
    keys: list[dict[str, Any]]


class CommitRecord(msgspec.Struct, omit_defaults=True):
    """A part of the record of a commit. Only the first part has `point` and `job`; only the last one has `last` set.

    `previous` is the generation that it builds on, 0 for none. `point` is missing if the recovery point is deleted and
    a lineage continues from it. `closed` holds the names that `previous` has and this generation lacks. An item of
    `chunk_lists` is the id of a list, the number of a part, its first index and its bytes. `parents` holds the segments
    that the lineage sees through to, the nearest first.
    """

    vault_id: int
    parents: list[tuple[int, int]] = []
    previous: int | None = None
    last: bool = False
    point: dict[str, Any] | None = None
    job: dict[str, Any] | None = None
    objects: list[tuple[Any, ...]] = []
    closed: list[bytes] = []
    chunk_lists: list[tuple[int, int, int, bytes]] = []

    @property
    def entries(self) -> int:
        """Number of object versions and names in the part."""
        return len(self.objects) + len(self.closed)


Record = TypeVar("Record", StoreRecord, VaultRecord, CommitRecord)


def encode(part: StoreRecord | VaultRecord | CommitRecord) -> bytes:
    """The bytes of a part: a byte for the format, then the struct in MessagePack."""
    return bytes((FORMAT,)) + msgspec.msgpack.encode(part)


def decode(data: bytes, kind: type[Record]) -> Record:
    """The inverse of `encode`. Raises DamagedDataError, ConfigurationError for a later format."""
    if data[:1] != bytes((FORMAT,)):
        raise ConfigurationError(
            f"a record has format {data[:1].hex() or 'none'}, this program knows format {FORMAT}",
            hint="use a newer Cryostore",
        )
    try:
        return msgspec.msgpack.decode(data[1:], type=kind)
    except msgspec.MsgspecError as error:
        raise DamagedDataError(f"a record cannot be decoded: {error}") from error
