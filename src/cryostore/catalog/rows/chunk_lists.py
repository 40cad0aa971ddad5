"""Chunk lists of objects: their packed form, in parts of at most `PART_CHUNKS` chunks, and the table of parts.

Byte table: docs/reference/formats.md, "Chunk list". A list of one part is stored in the object's own row; one of
several parts is stored in `chunk_list`. Once an upload is complete, there is no row per chunk any more.
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
    """A chunk of an object: its index, its length, its digest, and the form in which its writer named the digest."""

    chunk_index: int
    length: int
    digest: bytes
    form: int


def pack(entries: Sequence[ChunkEntry]) -> bytes:
    """Return the bytes of one part. The entries must be in ascending order of their indexes."""
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
    """Return the digests of one part, concatenated. Raises DamagedDataError (UnknownFormatError)."""
    whole, _, _, place = _checked(packed)
    return whole[place:]


def unpack(packed: bytes) -> list[ChunkEntry]:
    """Return the entries of one part. Raises DamagedDataError (UnknownFormatError)."""
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
    """Verify the CRC and the length of one part.

    Return its bytes without the CRC, the number of entries, the first index, and the offset of the digests.
    """
    whole, crc = packed[: -_CRC.size], packed[-_CRC.size :]
    if len(whole) < _HEAD.size or crc != _CRC.pack(zlib.crc32(whole)):
        raise DamagedDataError("a chunk list is damaged")
    version, count, first = _HEAD.unpack_from(whole)
    if version not in (_VERSION_RUN, _VERSION_INDEXED):
        raise UnknownFormatError(f"a chunk list has format {version}")
    place = _HEAD.size + (12 if version == _VERSION_INDEXED else 4) * count
    if len(whole) != place + DIGEST_BYTES * count:
        raise DamagedDataError("a chunk list has an impossible length")
    return whole, count, first, place


def insert_parts(transaction: Transaction, chunk_list_id: int, parts: Iterable[tuple[int, int, bytes]]) -> None:
    """Insert parts: number, first index and bytes of each. A part that exists is replaced."""
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
    """Yield the parts that hold chunk `index` and all later ones, in order, reading one at a time."""
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
    """Return the first index and the bytes of one part."""
    row = transaction.row(
        "SELECT first_index, chunks FROM chunk_list WHERE chunk_list_id = :chunk_list_id AND part = :number",
        chunk_list_id=chunk_list_id,
        number=number,
    )
    return (row[0], row[1]) if row else None


def delete(transaction: Transaction, chunk_list_id: int) -> None:
    """Delete all parts of a list."""
    transaction.run("DELETE FROM chunk_list WHERE chunk_list_id = :chunk_list_id", chunk_list_id=chunk_list_id)


def delete_some(transaction: Transaction, chunk_list_id: int, limit: int) -> int:
    """Delete at most `limit` parts of a list; return how many. Fewer than `limit` means that none are left."""
    return transaction.run(
        "DELETE FROM chunk_list WHERE chunk_list_id = :chunk_list_id AND part IN"
        " (SELECT part FROM chunk_list WHERE chunk_list_id = :chunk_list_id LIMIT :limit)",
        chunk_list_id=chunk_list_id,
        limit=limit,
    )


def skip_id(transaction: Transaction, chunk_list_id: int) -> None:
    """Never give the id of this list to an upload again. The id of a list is the number of the upload that wrote it."""
    transaction.run(
        "INSERT INTO upload (upload_number, upload_id, job_id, name, throw_on_duplicate, created_ms, chunk_count)"
        " VALUES (:chunk_list_id, '', '', :name, 0, 0, 0)",
        chunk_list_id=chunk_list_id,
        name=b"",
    )
    transaction.run("DELETE FROM upload WHERE upload_number = :chunk_list_id", chunk_list_id=chunk_list_id)
    transaction.pass_number("upload", "upload_number", chunk_list_id)
