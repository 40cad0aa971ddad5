"""Open uploads in the catalog, and the chunks that have arrived for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cryostore.catalog.chunk_lists import ChunkEntry
from cryostore.catalog.database import Transaction


class UploadRow(NamedTuple):
    """An upload. `completion_digest` is set once it is complete: the digest of the arguments that completed it."""

    upload_number: int
    upload_id: str
    job_id: str
    name: bytes
    throw_on_duplicate: bool
    chunk_count: int
    completion_digest: bytes | None


COLUMNS = ", ".join(UploadRow._fields)


def insert(
    transaction: Transaction, *, upload_id: str, job_id: str, name: bytes, throw_on_duplicate: bool, now_ms: int
) -> None:
    """Open an upload."""
    transaction.run(
        "INSERT INTO upload (upload_id, job_id, name, throw_on_duplicate, created_ms, chunk_count)"
        " VALUES (:upload_id, :job_id, :name, :throw_on_duplicate, :now_ms, 0)",
        upload_id=upload_id,
        job_id=job_id,
        name=name,
        throw_on_duplicate=int(throw_on_duplicate),
        now_ms=now_ms,
    )


def find(transaction: Transaction, job_id: str, upload_id: str) -> UploadRow | None:
    """The job's upload with this id."""
    row = transaction.row(
        f"SELECT {COLUMNS} FROM upload WHERE upload_id = :upload_id AND job_id = :job_id",
        upload_id=upload_id,
        job_id=job_id,
    )
    return UploadRow(*row) if row else None


def complete(transaction: Transaction, upload_number: int, completion_digest: bytes) -> None:
    """Close an upload whose object stands; its chunk rows are not needed any more."""
    transaction.run(
        "UPDATE upload SET completion_digest = :completion_digest WHERE upload_number = :upload_number",
        upload_number=upload_number,
        completion_digest=completion_digest,
    )
    transaction.run("DELETE FROM upload_chunk WHERE upload_number = :upload_number", upload_number=upload_number)


def open_count(transaction: Transaction, job_id: str) -> int:
    """How many of the job's uploads are not complete."""
    row = transaction.row(
        "SELECT count(*) FROM upload WHERE job_id = :job_id AND completion_digest IS NULL", job_id=job_id
    )
    return int(row[0]) if row else 0


def delete_of_job(transaction: Transaction, job_id: str, limit: int) -> bool:
    """Remove at most `limit` of an ended job's uploads with their chunk rows; answers whether none are left."""
    numbers = transaction.rows(
        "SELECT upload_number, completion_digest FROM upload WHERE job_id = :job_id LIMIT :limit",
        job_id=job_id,
        limit=limit,
    )
    for number, completion_digest in numbers:
        transaction.run("DELETE FROM upload_chunk WHERE upload_number = :number", number=number)
        if completion_digest is None:
            # Parts written ahead of a completion that never came; those of a completed one belong to its object.
            transaction.run("DELETE FROM chunk_list WHERE chunk_list_id = :number", number=number)
        transaction.run("DELETE FROM upload WHERE upload_number = :number", number=number)
    return len(numbers) < limit


def chunk(transaction: Transaction, upload_number: int, index: int) -> ChunkEntry | None:
    """The upload's chunk at this index."""
    row = transaction.row(
        "SELECT chunk_index, length, digest, form FROM upload_chunk"
        " WHERE upload_number = :upload_number AND chunk_index = :chunk_index",
        upload_number=upload_number,
        chunk_index=index,
    )
    return ChunkEntry(*row) if row else None


def add_chunk(transaction: Transaction, upload_number: int, entry: ChunkEntry) -> ChunkEntry | None:
    """Attach a chunk. None if it is attached now, else the chunk that stands at its index already."""
    added = transaction.run(
        "INSERT INTO upload_chunk (upload_number, chunk_index, length, form, digest)"
        " VALUES (:upload_number, :chunk_index, :length, :form, :digest)"
        " ON CONFLICT (upload_number, chunk_index) DO NOTHING",
        upload_number=upload_number,
        **entry._asdict(),
    )
    return None if added == 1 else chunk(transaction, upload_number, entry.chunk_index)


def count_chunk(transaction: Transaction, upload_number: int, *, chunks_max: int) -> bool:
    """Count an attached chunk; answers whether the upload is open and may have it."""
    counted = transaction.run(
        "UPDATE upload SET chunk_count = chunk_count + 1"
        " WHERE upload_number = :upload_number AND completion_digest IS NULL AND chunk_count < :chunks_max",
        upload_number=upload_number,
        chunks_max=chunks_max,
    )
    return counted == 1


def chunk_page(transaction: Transaction, upload_number: int, *, after: int, limit: int) -> Sequence[ChunkEntry]:
    """Chunks in ascending index order, after index `after`."""
    rows = transaction.rows(
        "SELECT chunk_index, length, digest, form FROM upload_chunk"
        " WHERE upload_number = :upload_number AND chunk_index > :after ORDER BY chunk_index LIMIT :limit",
        upload_number=upload_number,
        after=after,
        limit=limit,
    )
    return [ChunkEntry(*row) for row in rows]
