"""Damage that a read meets is marked, so that the next upload of the bytes heals it; and a writer is told of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.queries import damage, references
from cryostore.catalog.rows import chunk_lists, lineages, objects
from cryostore.catalog.rows.chunks import ChunkRow
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.objects import ObjectRow
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.core.digest import DIGEST_BYTES
from cryostore.core.errors import CryostoreError, DamagedDataError, UnknownFormatError
from cryostore.model.chunks import DamagedChunk, ListDamagedChunks, ListDamagedChunksOutput
from cryostore.model.errors import IllegalArgumentException
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.operations.recovery_points import find_point
from cryostore.service.operations.vaults import vault_by_name

DAMAGED = "stored data is damaged or lost; the next backup of the same data heals it"
"""What a caller is told. Which pack it is in is for the operator: `cryo check` says so."""
DIGESTS_PER_PAGE = 1000
DIGESTS_MAX = 100_000
"""So many damaged chunks of a vault are held; of more, the catalog is asked about each chunk."""
OBJECTS_PER_PAGE = 500
PARTS_PER_PAGE = 16
NAMES_MAX = 1000
PAGES = "damaged chunks"
CHUNKS_PER_REQUEST = 500_000
"""So many chunks are looked at for one page of damaged ones."""


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
    damaged = _Marked(context, point.vault_id)
    if not damaged or point.segment is None:
        return hurt
    for row in _objects(context, point.segment):
        if any(True for _ in _damaged_in(context, row, damaged, first=None)):
            hurt.count += 1
            if len(hurt.names) < NAMES_MAX:
                hurt.names.append(row.name.decode())
    return hurt


class _Marked:
    """The chunks of a vault that are marked as damaged. False if there are none."""

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
        """Those of these digests, which stand one behind the other, that are marked."""
        each = {digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)}
        if len(self._digests) <= DIGESTS_MAX:
            return each & self._digests
        states = self._context.database.read(partial(damage.states, vault_id=self._vault_id, digests=sorted(each)))
        return {digest for digest, state in states.items() if state.damaged}


def _objects(context: Context, segment: Segment, start: bytes = b"") -> Iterator[ObjectRow]:
    def page(transaction: Transaction, start: bytes) -> list[ObjectRow]:
        view = lineages.view(transaction, segment)
        return objects.page(transaction, view, start=start, prefix=b"", limit=OBJECTS_PER_PAGE)

    while rows := context.database.read(partial(page, start=start)):
        yield from rows
        start = rows[-1].name + b"\0"


def _damaged_in(context: Context, row: ObjectRow, damaged: _Marked, *, first: int | None) -> Iterator[int | None]:
    """The damaged chunks of an object by index, from `first` on; None for its metadata, which comes before them.

    An object whose chunk list cannot be read counts as damaged from there on.
    """
    if first is None and row.metadata_digest is not None and damaged.among(row.metadata_digest):
        yield None
    index = first or 0
    for packed in _chunk_lists(context, row):
        try:
            some = damaged.among(chunk_lists.digests(packed))
            if not some:
                continue
            for entry in chunk_lists.unpack(packed):
                index = max(index, entry.chunk_index)
                if entry.digest in some and entry.chunk_index >= (first or 0):
                    yield entry.chunk_index
        except DamagedDataError:  # what cannot be listed cannot be read
            yield index
            return


def list_damaged_chunks(context: Context, operation: ListDamagedChunks, caller: Caller) -> ListDamagedChunksOutput:
    """List the chunks of a recovery point that are known to be damaged.

    Costs one look into the catalog as long as the vault has no damage, and a pass over the point's chunk lists else,
    of which a request makes a part.
    """
    authorise(caller, operation.declaration.action, operation.backup_vault_name)

    def work(transaction: Transaction) -> PointRow:
        vault = vault_by_name(transaction, operation.backup_vault_name)
        return find_point(context, transaction, vault, operation.recovery_point_arn)

    point = context.database.read(work)
    start, first = _begin(context, point, operation.next_token)
    limit = operation.max_results or context.limits.page_items_max
    damaged = _Marked(context, point.vault_id)
    found: list[DamagedChunk] = []
    if not damaged or point.segment is None:
        return ListDamagedChunksOutput(damaged_chunks=found)
    seen = 0
    for row in _objects(context, point.segment, start):
        if len(found) >= limit or seen >= CHUNKS_PER_REQUEST:
            return _page(context, point, found, row.name, None)
        for index in _damaged_in(context, row, damaged, first=first if row.name == start else None):
            if len(found) >= limit:
                return _page(context, point, found, row.name, index)
            found.append(DamagedChunk(object_name=row.name.decode(), chunk_index=index))
        seen += row.chunk_count
    return ListDamagedChunksOutput(damaged_chunks=found)


def _begin(context: Context, point: PointRow, token: str | None) -> tuple[bytes, int | None]:
    """The name and the chunk index that a page begins with. Raises IllegalArgumentException for a foreign token."""
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
    """A page, and the token of the next one, which begins at a chunk of an object."""
    content = msgspec.json.encode((name.decode(), index))
    return ListDamagedChunksOutput(damaged_chunks=found, next_token=context.tokens.make(PAGES, point.point_id, content))


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
