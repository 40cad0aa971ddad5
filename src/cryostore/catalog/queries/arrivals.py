"""Query for an arriving chunk: everything PutChunk must know before it stores one, in one statement."""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.chunks import SOUND
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.uploads import UploadRow


class Arrival(NamedTuple):
    """The job; its upload, and the chunk at this index, if they exist; and the result of `chunks.known_in_epoch`."""

    job: JobRow
    upload: UploadRow | None
    present: ChunkEntry | None
    held: bool
    epoch: int


def _columns(table: str, fields: tuple[str, ...]) -> str:
    return ", ".join(f"{table}.{field}" for field in fields)


ARRIVAL = (
    f"SELECT {_columns('backup_job', JobRow._fields)}, {_columns('upload', UploadRow._fields)},"
    f" {_columns('upload_chunk', ChunkEntry._fields)},"
    " EXISTS (SELECT 1 FROM chunk WHERE chunk.vault_id = backup_job.vault_id AND chunk.digest = :digest"
    f" AND {SOUND}), collection.epoch FROM collection JOIN backup_job ON backup_job.job_id = :job_id"
    " LEFT JOIN upload ON upload.upload_id = :upload_id AND upload.job_id = backup_job.job_id"
    " LEFT JOIN upload_chunk ON upload_chunk.upload_number = upload.upload_number"
    " AND upload_chunk.chunk_index = :chunk_index"
)


def find(transaction: Transaction, job_id: str, upload_id: str, chunk_index: int, digest: bytes) -> Arrival | None:
    """Return the state for a chunk of this digest; None if the job does not exist."""
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
