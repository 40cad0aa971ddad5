"""ListDamagedChunks: the chunks of a recovery point that are known to be damaged (control plane 3.2)."""

from __future__ import annotations

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.model.chunks import DamagedChunk, ListDamagedChunks, ListDamagedChunksOutput
from cryostore.model.errors import IllegalArgumentException
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.operations.damage import DamagedChunks, damaged_chunks_of, iterate_objects
from cryostore.service.operations.recovery_points import find_point
from cryostore.service.operations.vaults import vault_by_name

PAGES = "damaged chunks"
CHUNKS_PER_REQUEST = 500_000
"""Chunks that one request examines at most."""


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
    start, first = _begin(context, point, operation.next_token)
    limit = operation.max_results or context.limits.page_items_max
    damaged = DamagedChunks(context, point.vault_id)
    found: list[DamagedChunk] = []
    if not damaged or point.segment is None:
        return ListDamagedChunksOutput(damaged_chunks=found)
    seen = 0
    for row in iterate_objects(context, point.segment, start):
        if len(found) >= limit or seen >= CHUNKS_PER_REQUEST:
            return _page(context, point, found, row.name, None)
        for index in damaged_chunks_of(context, row, damaged, first=first if row.name == start else None):
            if len(found) >= limit:
                return _page(context, point, found, row.name, index)
            found.append(DamagedChunk(object_name=row.name.decode(), chunk_index=index))
        seen += row.chunk_count
    return ListDamagedChunksOutput(damaged_chunks=found)


def _begin(context: Context, point: PointRow, token: str | None) -> tuple[bytes, int | None]:
    """Object name and chunk index at which a page begins. Raises IllegalArgumentException for a foreign token."""
    if not token:
        return b"", None
    content = context.tokens.open(PAGES, point.point_id, token)
    if content is None:
        raise IllegalArgumentException("NextToken: is not one that this list gave out")
    name, index = msgspec.json.decode(content, type=tuple[str, int | None])
    return name.encode(), index


def _page(
    context: Context, point: PointRow, found: list[DamagedChunk], name: bytes, index: int | None
) -> ListDamagedChunksOutput:
    """A page, with the token of the next page, which begins at a chunk of an object."""
    content = msgspec.json.encode((name.decode(), index))
    return ListDamagedChunksOutput(damaged_chunks=found, next_token=context.tokens.make(PAGES, point.point_id, content))
