"""Damage that a read meets is marked, so that the next upload of the bytes heals it; and a writer is told of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from cryostore.catalog import chunk_lists, damage, lineages, objects, references
from cryostore.catalog.chunks import ChunkRow
from cryostore.catalog.database import Transaction
from cryostore.catalog.lineages import Segment
from cryostore.catalog.objects import ObjectRow
from cryostore.catalog.recovery_points import PointRow
from cryostore.core.digest import DIGEST_BYTES
from cryostore.core.errors import CryostoreError, DamagedDataError, UnknownFormatError
from cryostore.service.context import Context

DAMAGED = "stored data is damaged or lost; the next backup of the same data heals it"
"""What a caller is told. Which pack it is in is for the operator: `cryo check` says so."""
DIGESTS_PER_PAGE = 1000
DIGESTS_MAX = 100_000
"""More damaged chunks than these are not told apart: then every object counts as hurt."""
OBJECTS_PER_PAGE = 500
PARTS_PER_PAGE = 16
NAMES_MAX = 1000


@dataclass(slots=True)
class HurtObjects:
    """The objects that need damaged bytes: how many they are, and the names of the first."""

    count: int = 0
    names: list[str] = field(default_factory=list)


def mark(context: Context, vault_id: int, digest: bytes, row: ChunkRow, error: DamagedDataError) -> None:
    """Mark the chunk that could not be read at `row` for this error, if it still lies there.

    Does nothing if the catalog cannot be written, or if the bytes are not damaged but a later version's.
    """
    if isinstance(error, UnknownFormatError) or isinstance(error.__cause__, UnknownFormatError):
        return
    work = partial(damage.mark_if_there, vault_id=vault_id, digest=digest, chunk=row, now_ms=context.clock())
    with contextlib.suppress(CryostoreError):
        context.database.write(work)


def damaged_objects(context: Context, point: PointRow) -> HurtObjects:
    """The objects of a recovery point that need bytes known to be damaged.

    Costs one look into the catalog as long as the vault has no damage, and a pass over the point's chunk lists else.
    """
    hurt = HurtObjects()
    damaged = _damaged_digests(context, point.vault_id)
    if not damaged or point.segment is None:
        return hurt
    for row in _objects(context, point.segment):
        if len(damaged) > DIGESTS_MAX or _needs(context, row, damaged):
            hurt.count += 1
            if len(hurt.names) < NAMES_MAX:
                hurt.names.append(row.name.decode())
    return hurt


def _damaged_digests(context: Context, vault_id: int) -> set[bytes]:
    found: set[bytes] = set()
    after = (vault_id, b"")
    while len(found) <= DIGESTS_MAX:
        page = context.database.read(partial(damage.page, after=after, limit=DIGESTS_PER_PAGE))
        here = [digest for number, digest in page if number == vault_id]
        found.update(here)
        if len(here) < DIGESTS_PER_PAGE:
            break
        after = page[-1]
    return found


def _objects(context: Context, segment: Segment) -> Iterator[ObjectRow]:
    def page(transaction: Transaction, start: bytes) -> list[ObjectRow]:
        view = lineages.view(transaction, segment)
        return objects.page(transaction, view, start=start, prefix=b"", limit=OBJECTS_PER_PAGE)

    start = b""
    while rows := context.database.read(partial(page, start=start)):
        yield from rows
        start = rows[-1].name + b"\0"


def _needs(context: Context, row: ObjectRow, damaged: set[bytes]) -> bool:
    if row.metadata_digest in damaged:
        return True
    for packed in _chunk_lists(context, row):
        try:
            digests = chunk_lists.digests(packed)
        except DamagedDataError:  # what cannot be listed cannot be read
            return True
        if any(digests[at : at + DIGEST_BYTES] in damaged for at in range(0, len(digests), DIGEST_BYTES)):
            return True
    return False


def _chunk_lists(context: Context, row: ObjectRow) -> Iterator[bytes]:
    """The packed parts of an object's chunk list, of whichever of the two kinds it is."""
    packed = context.database.read(partial(objects.packed_chunks, object_id=row.object_id))
    if packed is not None:
        yield packed
    if (list_id := row.chunk_list_id) is not None:
        first = 0
        while parts := context.database.read(
            partial(references.list_parts, chunk_list_id=list_id, first=first, limit=PARTS_PER_PAGE)
        ):
            yield from parts
            first += len(parts)
