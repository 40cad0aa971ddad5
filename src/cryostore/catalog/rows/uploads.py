"""Open uploads, and the chunks that have arrived for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cryostore.catalog.database import Statement, Transaction
from cryostore.catalog.rows import chunk_lists
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.chunks import SOUND
from cryostore.catalog.rows.jobs import JobRow

CHUNKS_AT_COMPLETION = 5000


class UploadRow(NamedTuple):
    """An upload. When it is complete, `completion_digest` is the digest of the request that completed it."""

    upload_number: int
    upload_id: str
    job_id: str
    name: bytes
    throw_on_duplicate: bool
    chunk_count: int
    completion_digest: bytes | None


class Arrival(NamedTuple):
    """What PutChunk must know of an arriving chunk.

    The job; its upload, and the chunk at this index, if they exist; and the result of `chunks.known_in_epoch`.
    """

    job: JobRow
    upload: UploadRow | None
    present: ChunkEntry | None
    held: bool
    epoch: int


def _columns(table: str, fields: tuple[str, ...]) -> str:
    return ", ".join(f"{table}.{field}" for field in fields)


COLUMNS = ", ".join(UploadRow._fields)
ARRIVAL = (
    f"SELECT {_columns('backup_job', JobRow._fields)}, {_columns('upload', UploadRow._fields)},"
    f" {_columns('upload_chunk', ChunkEntry._fields)},"
    " EXISTS (SELECT 1 FROM chunk WHERE chunk.vault_id = backup_job.vault_id AND chunk.digest = :digest"
    f" AND {SOUND}), collection.epoch FROM collection JOIN backup_job ON backup_job.job_id = :job_id"
    " LEFT JOIN upload ON upload.upload_id = :upload_id AND upload.job_id = backup_job.job_id"
    " LEFT JOIN upload_chunk ON upload_chunk.upload_number = upload.upload_number"
    " AND upload_chunk.chunk_index = :chunk_index"
)


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
    """Return the job's upload with this id."""
    row = transaction.row(
        f"SELECT {COLUMNS} FROM upload WHERE upload_id = :upload_id AND job_id = :job_id",
        upload_id=upload_id,
        job_id=job_id,
    )
    return UploadRow(*row) if row else None


def complete(transaction: Transaction, upload_number: int, completion_digest: bytes) -> None:
    """Close an upload whose object exists. Deletes few of its chunk rows; the job's clean-up deletes the others."""
    transaction.run(
        "UPDATE upload SET completion_digest = :completion_digest WHERE upload_number = :upload_number",
        upload_number=upload_number,
        completion_digest=completion_digest,
    )
    _delete_chunks(transaction, upload_number, CHUNKS_AT_COMPLETION)


class UploadCounts(NamedTuple):
    """Numbers of a job's uploads: open ones, and complete ones whose rows still exist."""

    open: int
    complete: int


def counts(transaction: Transaction, job_id: str) -> UploadCounts:
    """Return the numbers of uploads of a job."""
    row = transaction.row(
        "SELECT count(*) - count(completion_digest), count(completion_digest) FROM upload WHERE job_id = :job_id",
        job_id=job_id,
    )
    assert row is not None
    return UploadCounts(*row)


def jobs_with_uploads(transaction: Transaction) -> Iterator[str]:
    """Yield the jobs that have uploads, ended or not, by id.

    The cost is proportional to the jobs, not to the uploads.
    """
    job_id = ""
    while (row := transaction.row("SELECT min(job_id) FROM upload WHERE job_id > :job_id", job_id=job_id)) and row[0]:
        job_id = row[0]
        yield job_id


def delete_complete(transaction: Transaction, job_id: str, limit: int) -> int:
    """Delete at most `limit` complete uploads of a job that have no other rows left; return how many.

    An upload keeps its row while it has chunk rows, or parts of a chunk list that belong to no object.
    """
    return transaction.run(
        "DELETE FROM upload WHERE upload_number IN (SELECT upload_number FROM upload AS complete"
        " WHERE job_id = :job_id AND completion_digest IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM upload_chunk WHERE upload_chunk.upload_number = complete.upload_number)"
        " AND (NOT EXISTS (SELECT 1 FROM chunk_list WHERE chunk_list.chunk_list_id = complete.upload_number)"
        " OR EXISTS (SELECT 1 FROM object WHERE object.chunk_list_id = complete.upload_number)) LIMIT :limit)",
        job_id=job_id,
        limit=limit,
    )


def delete_of_job(transaction: Transaction, job_id: str, limit: int) -> bool:
    """Delete at most `limit` rows of an ended job's uploads and what depends on them; return whether none are left."""
    left = limit - delete_complete(transaction, job_id, limit)
    while left > 0:
        row = transaction.row(
            "SELECT upload_number FROM upload WHERE job_id = :job_id ORDER BY upload_number LIMIT 1", job_id=job_id
        )
        if row is None:
            return True
        (number,) = row
        left -= _delete_chunks(transaction, number, left)
        if left > 0 and not _has_object(transaction, number):
            left -= chunk_lists.delete_some(transaction, number, left)
        if left > 0:
            transaction.run("DELETE FROM upload WHERE upload_number = :number", number=number)
            left -= 1
    return False


def _delete_chunks(transaction: Transaction, upload_number: int, limit: int) -> int:
    return transaction.run(
        "DELETE FROM upload_chunk WHERE upload_number = :upload_number AND chunk_index IN"
        " (SELECT chunk_index FROM upload_chunk WHERE upload_number = :upload_number LIMIT :limit)",
        upload_number=upload_number,
        limit=limit,
    )


def _has_object(transaction: Transaction, upload_number: int) -> bool:
    """Whether the parts of a chunk list that were written for an upload now belong to an object."""
    return transaction.row("SELECT 1 FROM object WHERE chunk_list_id = :number", number=upload_number) is not None


def chunk(transaction: Transaction, upload_number: int, index: int) -> ChunkEntry | None:
    """Return the upload's chunk at this index."""
    row = transaction.row(
        "SELECT chunk_index, length, digest, form FROM upload_chunk"
        " WHERE upload_number = :upload_number AND chunk_index = :chunk_index",
        upload_number=upload_number,
        chunk_index=index,
    )
    return ChunkEntry(*row) if row else None


def add_chunk_statement(upload_number: int, entry: ChunkEntry) -> Statement:
    """Return the statement that adds a chunk to an upload. It changes one row, or none if the index is taken."""
    return Statement(
        "INSERT INTO upload_chunk (upload_number, chunk_index, length, form, digest)"
        " VALUES (:upload_number, :chunk_index, :length, :form, :digest)"
        " ON CONFLICT (upload_number, chunk_index) DO NOTHING",
        {"upload_number": upload_number, **entry._asdict()},
    )


def count_chunk_statement(upload_number: int, *, chunks_max: int) -> Statement:
    """Return the statement that counts an added chunk.

    It changes one row, or none if the upload is complete or full.
    """
    return Statement(
        "UPDATE upload SET chunk_count = chunk_count + 1"
        " WHERE upload_number = :upload_number AND completion_digest IS NULL AND chunk_count < :chunks_max",
        {"upload_number": upload_number, "chunks_max": chunks_max},
    )


def chunk_page(transaction: Transaction, upload_number: int, *, after: int, limit: int) -> Sequence[ChunkEntry]:
    """Return chunks in ascending order of their indexes, after index `after`."""
    rows = transaction.rows(
        "SELECT chunk_index, length, digest, form FROM upload_chunk"
        " WHERE upload_number = :upload_number AND chunk_index > :after ORDER BY chunk_index LIMIT :limit",
        upload_number=upload_number,
        after=after,
        limit=limit,
    )
    return [ChunkEntry(*row) for row in rows]


def find_arrival(
    transaction: Transaction, job_id: str, upload_id: str, chunk_index: int, digest: bytes
) -> Arrival | None:
    """Return all that PutChunk must know before it stores a chunk, in one statement; None if the job does not exist."""
    row = transaction.row(ARRIVAL, job_id=job_id, upload_id=upload_id, chunk_index=chunk_index, digest=digest)
    if row is None:
        return None
    upload_begin = len(JobRow._fields)
    chunk_begin = upload_begin + len(UploadRow._fields)
    chunk_end = chunk_begin + len(ChunkEntry._fields)
    upload, present = row[upload_begin:chunk_begin], row[chunk_begin:chunk_end]
    return Arrival(
        JobRow(*row[:upload_begin]),
        UploadRow(*upload) if upload[0] is not None else None,
        ChunkEntry(*present) if present[0] is not None else None,
        bool(row[chunk_end]),
        row[chunk_end + 1],
    )
