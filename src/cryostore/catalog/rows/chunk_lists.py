"""The compact form of an object's chunk list, in parts of at most `PART_CHUNKS` chunks.

Lives here: the bytes (docs/reference/formats.md, "Chunk list") and the tables that hold them. A list of one part lies
in the object's own row; one of several lies in `chunk_list`. There is never a row per chunk once an upload is complete.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.core.digest import DIGEST_BYTES
from cryostore.core.errors import DamagedDataError, UnknownFormatError

PART_CHUNKS = 1000
_HEAD = struct.Struct(">BxxxIQ")
_CRC = struct.Struct(">I")
_VERSION_RUN = 1
_VERSION_INDEXED = 2
_FORM_BIT = 31


class ChunkEntry(NamedTuple):
    """One chunk of an object: its place in the order, its length, its digest, and the form its writer named it in."""

    chunk_index: int
    length: int
    digest: bytes
    form: int


def pack(entries: Sequence[ChunkEntry]) -> bytes:
    """The bytes of one part. Entries are in ascending index order."""
    first = entries[0].chunk_index if entries else 0
    run = all(entry.chunk_index == first + place for place, entry in enumerate(entries))
    lengths = [entry.length | entry.form << _FORM_BIT for entry in entries]
    packed = b"".join(
        (
            _HEAD.pack(_VERSION_RUN if run else _VERSION_INDEXED, len(entries), first),
            struct.pack(f">{len(entries)}I", *lengths),
            b"" if run else struct.pack(f">{len(entries)}Q", *(entry.chunk_index for entry in entries)),
            *(entry.digest for entry in entries),
        )
    )
    return packed + _CRC.pack(zlib.crc32(packed))


def digests(packed: bytes) -> bytes:
    """The digests of one part, one behind the other; raises DamagedDataError if the bytes are not one."""
    whole, _, _, place = _checked(packed)
    return whole[place:]


def unpack(packed: bytes) -> list[ChunkEntry]:
    """The entries of one part; raises DamagedDataError if the bytes are not one."""
    whole, count, first, start = _checked(packed)
    lengths = struct.unpack_from(f">{count}I", whole, _HEAD.size)
    indexes: Sequence[int] = range(first, first + count)
    if start > _HEAD.size + 4 * count:
        indexes = struct.unpack_from(f">{count}Q", whole, _HEAD.size + 4 * count)
    mask = (1 << _FORM_BIT) - 1
    return [
        ChunkEntry(index, length & mask, whole[place : place + DIGEST_BYTES], length >> _FORM_BIT)
        for place, index, length in zip(range(start, len(whole), DIGEST_BYTES), indexes, lengths, strict=True)
    ]


def _checked(packed: bytes) -> tuple[bytes, int, int, int]:
    """One part without its CRC: the bytes, the number of entries, the first index, and where the digests begin."""
    whole, crc = packed[: -_CRC.size], packed[-_CRC.size :]
    if len(whole) < _HEAD.size or crc != _CRC.pack(zlib.crc32(whole)):
        raise DamagedDataError("a chunk list is damaged")
    version, count, first = _HEAD.unpack_from(whole)
    if version not in (_VERSION_RUN, _VERSION_INDEXED):
        raise UnknownFormatError(f"a chunk list has format {version}")
    place = _HEAD.size + (12 if version == _VERSION_INDEXED else 4) * count
    if len(whole) != place + DIGEST_BYTES * count:
        raise DamagedDataError("a chunk list is of a length that cannot be")
    return whole, count, first, place


def insert_parts(transaction: Transaction, chunk_list_id: int, parts: Iterable[tuple[int, int, bytes]]) -> None:
    """Add parts, each its number, its first index and its bytes. One that is there already is replaced."""
    for part, first_index, chunks in parts:
        transaction.run(
            "INSERT INTO chunk_list (chunk_list_id, part, first_index, chunks)"
            " VALUES (:chunk_list_id, :part, :first_index, :chunks)"
            " ON CONFLICT (chunk_list_id, part) DO UPDATE"
            " SET first_index = excluded.first_index, chunks = excluded.chunks",
            chunk_list_id=chunk_list_id,
            part=part,
            first_index=first_index,
            chunks=chunks,
        )


def parts_from(transaction: Transaction, chunk_list_id: int, index: int) -> Iterator[bytes]:
    """The parts that hold chunk `index` and all after it, in order, read one at a time."""
    row = transaction.row(
        "SELECT max(part) FROM chunk_list WHERE chunk_list_id = :chunk_list_id AND first_index <= :index",
        chunk_list_id=chunk_list_id,
        index=index,
    )
    part = row[0] if row and row[0] is not None else 0
    while found := transaction.row(
        "SELECT chunks FROM chunk_list WHERE chunk_list_id = :chunk_list_id AND part = :part",
        chunk_list_id=chunk_list_id,
        part=part,
    ):
        yield found[0]
        part += 1


def part(transaction: Transaction, chunk_list_id: int, number: int) -> tuple[int, bytes] | None:
    """One part of a list, by its number: its first index, and its bytes."""
    row = transaction.row(
        "SELECT first_index, chunks FROM chunk_list WHERE chunk_list_id = :chunk_list_id AND part = :number",
        chunk_list_id=chunk_list_id,
        number=number,
    )
    return (row[0], row[1]) if row else None


def delete(transaction: Transaction, chunk_list_id: int) -> None:
    """Remove all parts of a list."""
    transaction.run("DELETE FROM chunk_list WHERE chunk_list_id = :chunk_list_id", chunk_list_id=chunk_list_id)


def delete_some(transaction: Transaction, chunk_list_id: int, limit: int) -> int:
    """Remove at most `limit` parts of a list; answers how many. Fewer than `limit` means that none are left."""
    return transaction.run(
        "DELETE FROM chunk_list WHERE chunk_list_id = :chunk_list_id AND part IN"
        " (SELECT part FROM chunk_list WHERE chunk_list_id = :chunk_list_id LIMIT :limit)",
        chunk_list_id=chunk_list_id,
        limit=limit,
    )


def skip_id(transaction: Transaction, chunk_list_id: int) -> None:
    """Give the id of a list, which is the number of the upload it came from, out to no upload any more."""
    transaction.run(
        "INSERT INTO upload (upload_number, upload_id, job_id, name, throw_on_duplicate, created_ms, chunk_count)"
        " VALUES (:chunk_list_id, '', '', :name, 0, 0, 0)",
        chunk_list_id=chunk_list_id,
        name=b"",
    )
    transaction.run("DELETE FROM upload WHERE upload_number = :chunk_list_id", chunk_list_id=chunk_list_id)
    transaction.pass_number("upload", "upload_number", chunk_list_id)
