"""ListChunks, GetChunk and ListDamagedChunks (Backup Storage B.9, B.10, control plane 3.2).

The chunks of an object, their verified bytes, and the chunks of a recovery point that are known to be damaged.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunk_lists, chunks, objects
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.chunks import ChunkRow
from cryostore.catalog.rows.objects import ObjectRow
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.chunks.store import Location
from cryostore.core.digest import Payload, digest_text
from cryostore.core.errors import DamagedDataError
from cryostore.model.chunks import (
    Chunk,
    DamagedChunk,
    GetChunk,
    GetChunkOutput,
    ListChunks,
    ListChunksOutput,
    ListDamagedChunks,
    ListDamagedChunksOutput,
)
from cryostore.model.errors import IllegalArgumentException, ResourceNotFoundException
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.operations.damage import DamagedChunks, damaged_chunks_of, iterate_objects, mark_chunk_damaged
from cryostore.service.operations.recovery_points import find_point
from cryostore.service.operations.storage_jobs import (
    StorageJob,
    find_object_of_token,
    foreign_token_error,
    open_job_token,
    storage_job,
    storage_job_with,
)
from cryostore.service.operations.vaults import vault_by_name

_CHUNK = struct.Struct("<IB32s")
_INDEX = struct.Struct("<q")
DAMAGED_PAGES = "damaged chunks"
CHUNKS_PER_REQUEST = 500_000
"""Chunks that one request examines at most."""


def list_chunks(context: Context, operation: ListChunks, caller: Caller) -> ListChunksOutput:
    """List a page of an object's chunks, in ascending index order."""
    job = storage_job(context, operation.storage_job_id, operation.declaration.action, caller)
    limit = operation.max_results or context.limits.page_items_max
    kind = "chunks " + hashlib.sha256(operation.object_token.encode()).hexdigest()
    first = 0
    if operation.next_token:
        first = _INDEX.unpack(open_job_token(context, kind, job.job_id, operation.next_token, "NextToken"))[0]
    entries = context.database.read(
        lambda transaction: _entries_from(
            transaction, find_object_of_token(context, transaction, job, operation.object_token), first, limit + 1
        )
    )
    token = None
    if len(entries) > limit:
        token = context.tokens.make(kind, job.job_id, _INDEX.pack(entries[limit].chunk_index))
    chunk_list = [_chunk(context, job, entry) for entry in entries[:limit]]
    return ListChunksOutput(chunk_list=chunk_list, next_token=token)


def _entries_from(transaction: Transaction, row: ObjectRow, first: int, limit: int) -> list[ChunkEntry]:
    """At most `limit` chunks of an object, from index `first` on."""
    if row.chunk_list_id is None:
        packed = objects.packed_chunks(transaction, row.object_id)
        parts = iter([] if packed is None else [packed])
    else:
        parts = chunk_lists.parts_from(transaction, row.chunk_list_id, first)
    entries: list[ChunkEntry] = []
    for part in parts:
        entries.extend(entry for entry in chunk_lists.unpack(part) if entry.chunk_index >= first)
        if len(entries) >= limit:
            break
    return entries[:limit]


def _chunk(context: Context, job: StorageJob, entry: ChunkEntry) -> Chunk:
    content = _CHUNK.pack(entry.length, entry.form, entry.digest)
    return Chunk(
        index=entry.chunk_index,
        length=entry.length,
        checksum=digest_text(entry.digest, entry.form),
        checksum_algorithm="SHA256",
        chunk_token=context.tokens.make("chunk", job.job_id, content),
    )


def get_chunk(context: Context, operation: GetChunk, caller: Caller) -> GetChunkOutput:
    """Return the verified bytes of a chunk, or raise; never return wrong bytes."""
    token = context.tokens.open("chunk", operation.storage_job_id.upper(), operation.chunk_token)
    length, form, digest = _CHUNK.unpack(token) if token is not None else (0, 0, b"")
    job, row = storage_job_with(
        context,
        operation.storage_job_id,
        operation.declaration.action,
        caller,
        lambda transaction, job: None if token is None else chunks.find(transaction, job.vault_id, digest),
    )
    if token is None:
        raise foreign_token_error("ChunkToken")
    return GetChunkOutput(
        data=read_bytes(context, job, digest, length, row, compressed=caller.takes_zstd),
        length=length,
        checksum=digest_text(digest, form),
        checksum_algorithm="SHA256",
    )


def read_bytes(
    context: Context,
    job: StorageJob,
    digest: bytes,
    length: int,
    row: ChunkRow | None = None,
    *,
    compressed: bool = False,
) -> Payload:
    """The bytes with this digest; `row` is their location if the caller has looked it up.

    With `compressed`, returns them in their stored form if that is compressed. Marks a chunk that does not open as
    damaged, and raises DamagedDataError.
    """
    row = row or _find_chunk(context, job, digest)
    while True:
        key = context.keys.opening(row.key_number)
        location = Location(row.pack_name, row.pack_offset, row.sealed_length)
        try:
            if compressed:
                return context.store.get_compressed(location, key, digest, length)
            return Payload(context.store.get(location, key, digest, length), sha256=digest)
        except DamagedDataError as error:
            moved = _find_chunk(context, job, digest)  # compaction may have moved it and removed its old pack
            if moved == row:
                if row.length == length:  # or the list is wrong, not the chunk
                    mark_chunk_damaged(context, job.vault_id, digest, row, error)
                raise
            row = moved


def _find_chunk(context: Context, job: StorageJob, digest: bytes) -> ChunkRow:
    row = context.database.read(lambda transaction: chunks.find(transaction, job.vault_id, digest))
    if row is None and job.frozen:
        raise DamagedDataError(f"the catalog lacks the chunk {digest.hex()}, which a recovery point needs")
    if row is None:
        raise ResourceNotFoundException("the chunk no longer exists")
    return row


def list_damaged_chunks(context: Context, operation: ListDamagedChunks, caller: Caller) -> ListDamagedChunksOutput:
    """List the chunks of a recovery point that are known to be damaged.

    Costs one query if the vault has no damage, and a pass over the point's chunk lists otherwise, in portions of one
    request each.
    """
    authorise(caller, operation.declaration.action, operation.backup_vault_name)

    def work(transaction: Transaction) -> PointRow:
        vault = vault_by_name(transaction, operation.backup_vault_name)
        return find_point(context, transaction, vault, operation.recovery_point_arn)

    point = context.database.read(work)
    start, first = _begin_damaged(context, point, operation.next_token)
    limit = operation.max_results or context.limits.page_items_max
    damaged = DamagedChunks(context, point.vault_id)
    found: list[DamagedChunk] = []
    if not damaged or point.segment is None:
        return ListDamagedChunksOutput(damaged_chunks=found)
    seen = 0
    for row in iterate_objects(context, point.segment, start):
        if len(found) >= limit or seen >= CHUNKS_PER_REQUEST:
            return _damaged_page(context, point, found, row.name, None)
        for index in damaged_chunks_of(context, row, damaged, first=first if row.name == start else None):
            if len(found) >= limit:
                return _damaged_page(context, point, found, row.name, index)
            found.append(DamagedChunk(object_name=row.name.decode(), chunk_index=index))
        seen += row.chunk_count
    return ListDamagedChunksOutput(damaged_chunks=found)


def _begin_damaged(context: Context, point: PointRow, token: str | None) -> tuple[bytes, int | None]:
    """Object name and chunk index at which a page begins. Raises IllegalArgumentException for a foreign token."""
    if not token:
        return b"", None
    content = context.tokens.open(DAMAGED_PAGES, point.point_id, token)
    if content is None:
        raise IllegalArgumentException("NextToken: is not one that this list gave out")
    name, index = msgspec.json.decode(content, type=tuple[str, int | None])
    return name.encode(), index


def _damaged_page(
    context: Context, point: PointRow, found: list[DamagedChunk], name: bytes, index: int | None
) -> ListDamagedChunksOutput:
    """A page, with the token of the next page, which begins at a chunk of an object."""
    content = msgspec.json.encode((name.decode(), index))
    return ListDamagedChunksOutput(
        damaged_chunks=found, next_token=context.tokens.make(DAMAGED_PAGES, point.point_id, content)
    )
