"""Damaged chunks: marking one that a read finds, and the objects of a recovery point that need damaged chunks.

A writer that stores the bytes of a marked chunk again heals it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from cryostore.catalog.database import Transaction
from cryostore.catalog.queries import damage
from cryostore.catalog.queries.references import chunk_list_parts
from cryostore.catalog.rows import chunk_lists, lineages, objects
from cryostore.catalog.rows.chunks import ChunkRow
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.objects import ObjectRow
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.core.digest import DIGEST_BYTES
from cryostore.core.errors import CryostoreError, DamagedDataError, UnknownFormatError
from cryostore.service.context import Context

DAMAGED_MESSAGE = "stored data is damaged or lost; the next backup of the same data heals it"
"""The message for callers. `cryo check` tells the operator which pack is damaged."""
DIGESTS_PER_PAGE = 1000
DIGESTS_MAX = 100_000
"""Damaged chunks of a vault that are held in memory; beyond that, the catalog is asked for each chunk list."""
OBJECTS_PER_PAGE = 500
NAMES_MAX = 1000


@dataclass(slots=True)
class DamagedObjects:
    """The objects that need damaged chunks: their number, and the names of the first ones."""

    count: int = 0
    names: list[str] = field(default_factory=list)


def mark_chunk_damaged(context: Context, vault_id: int, digest: bytes, row: ChunkRow, error: DamagedDataError) -> None:
    """Mark the chunk whose read at `row` raised `error` as damaged, if it is still there.

    Does nothing if the catalog cannot be written, or if a later version of Cryostore wrote the bytes.
    """
    if isinstance(error, UnknownFormatError) or isinstance(error.__cause__, UnknownFormatError):
        return
    work = partial(damage.mark_if_there, vault_id=vault_id, digest=digest, chunk=row, now_ms=context.clock())
    with contextlib.suppress(CryostoreError):
        context.database.write(work)


def find_damaged_objects(context: Context, point: PointRow) -> DamagedObjects:
    """The objects of a recovery point that need chunks known to be damaged.

    Costs one query if the vault has no damage, and a pass over the point's chunk lists otherwise.
    """
    found = DamagedObjects()
    damaged = DamagedChunks(context, point.vault_id)
    if not damaged or point.segment is None:
        return found
    for row in iterate_objects(context, point.segment):
        if any(True for _ in damaged_chunks_of(context, row, damaged, first=None)):
            found.count += 1
            if len(found.names) < NAMES_MAX:
                found.names.append(row.name.decode())
    return found


class DamagedChunks:
    """The set of a vault's chunks that are marked as damaged. False if it is empty."""

    def __init__(self, context: Context, vault_id: int) -> None:
        self._context = context
        self._vault_id = vault_id
        self._digests: set[bytes] = set()
        after = (vault_id, b"")
        while len(self._digests) <= DIGESTS_MAX:
            page = context.database.read(partial(damage.page, after=after, limit=DIGESTS_PER_PAGE))
            here = [digest for number, digest in page if number == vault_id]
            self._digests.update(here)
            if len(here) < DIGESTS_PER_PAGE:
                break
            after = page[-1]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def among(self, digests: bytes) -> set[bytes]:
        """The marked digests among `digests`, which is a concatenation of digests."""
        each = {digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)}
        if len(self._digests) <= DIGESTS_MAX:
            return each & self._digests
        states = self._context.database.read(partial(damage.states, vault_id=self._vault_id, digests=sorted(each)))
        return {digest for digest, state in states.items() if state.damaged}


def iterate_objects(context: Context, segment: Segment, start: bytes = b"") -> Iterator[ObjectRow]:
    """The objects that a segment sees, by name, from `start` on."""

    def page(transaction: Transaction, start: bytes) -> list[ObjectRow]:
        view = lineages.view(transaction, segment)
        return objects.page(transaction, view, start=start, prefix=b"", limit=OBJECTS_PER_PAGE)

    while rows := context.database.read(partial(page, start=start)):
        yield from rows
        start = rows[-1].name + b"\0"


def damaged_chunks_of(
    context: Context, row: ObjectRow, damaged: DamagedChunks, *, first: int | None
) -> Iterator[int | None]:
    """The indexes of an object's damaged chunks, from `first` on; None, before them, for its metadata.

    If a part of the chunk list cannot be read, yields the index where it starts, and ends.
    """
    if first is None and row.metadata_digest is not None and damaged.among(row.metadata_digest):
        yield None
    index = first or 0
    packed_in_row = context.database.read(partial(objects.packed_chunks, object_id=row.object_id))
    for packed in chunk_list_parts(context.database, packed_in_row, row.chunk_list_id):
        try:
            some = damaged.among(chunk_lists.digests(packed))
            if not some:
                continue
            for entry in chunk_lists.unpack(packed):
                index = max(index, entry.chunk_index)
                if entry.digest in some and entry.chunk_index >= (first or 0):
                    yield entry.chunk_index
        except DamagedDataError:  # chunks that cannot be listed cannot be read
            yield index
            return
