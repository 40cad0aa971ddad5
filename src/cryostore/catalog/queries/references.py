"""References to chunks, page by page: what garbage collection marks. Each page is a transaction of its own.

References move in one direction only: from the chunks of an upload to the object that it becomes, in one transaction.
So a reader that reads all chunks of uploads first and all objects second misses none that existed when it began.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from cryostore.catalog.database import Database, Transaction

PARTS_PER_PAGE = 50


class UploadedChunk(NamedTuple):
    """A chunk of an upload, whether it is still needed or not. `vault_id` is None if the job is gone with its vault."""

    upload_number: int
    chunk_index: int
    vault_id: int | None
    digest: bytes


class ObjectReferences(NamedTuple):
    """References of an object version: a packed chunk list, or the id of one in several parts, and a metadata blob."""

    object_id: int
    vault_id: int | None
    metadata_digest: bytes | None
    chunk_list_id: int | None
    chunks: bytes | None


def upload_chunks(transaction: Transaction, *, after: tuple[int, int], limit: int) -> list[UploadedChunk]:
    """Return chunks of all uploads, after an upload number and an index."""
    rows = transaction.rows(
        "SELECT upload_chunk.upload_number, chunk_index, vault_id, digest FROM upload_chunk"
        " LEFT JOIN upload ON upload.upload_number = upload_chunk.upload_number"
        " LEFT JOIN backup_job ON backup_job.job_id = upload.job_id"
        " WHERE (upload_chunk.upload_number, chunk_index) > (:after_number, :after_index)"
        " ORDER BY upload_chunk.upload_number, chunk_index LIMIT :limit",
        after_number=after[0],
        after_index=after[1],
        limit=limit,
    )
    return [UploadedChunk(*row) for row in rows]


def objects(transaction: Transaction, *, after: int, limit: int) -> list[ObjectReferences]:
    """Return object versions, visible or not, after an id."""
    rows = transaction.rows(
        "SELECT object_id, vault_id, metadata_digest, chunk_list_id, chunks FROM object"
        " LEFT JOIN lineage ON lineage.lineage_id = object.lineage_id"
        " WHERE object_id > :after ORDER BY object_id LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [ObjectReferences(*row) for row in rows]


def list_parts(transaction: Transaction, chunk_list_id: int, *, first: int, limit: int) -> list[bytes]:
    """Return packed parts of a chunk list from part `first` on; fewer than `limit` at its end."""
    rows = transaction.rows(
        "SELECT chunks FROM chunk_list WHERE chunk_list_id = :chunk_list_id AND part >= :first"
        " ORDER BY part LIMIT :limit",
        chunk_list_id=chunk_list_id,
        first=first,
        limit=limit,
    )
    return [row[0] for row in rows]


def chunk_list_parts(database: Database, packed: bytes | None, chunk_list_id: int | None) -> Iterator[bytes]:
    """The packed parts of an object's chunk list, in order: that in its own row, then those of a list of several parts.

    Each page of parts is read in a transaction of its own, while the caller iterates.
    """
    if packed is not None:
        yield packed
    if chunk_list_id is not None:
        first = 0
        while parts := database.read(
            partial(list_parts, chunk_list_id=chunk_list_id, first=first, limit=PARTS_PER_PAGE)
        ):
            yield from parts
            first += len(parts)
