"""Mark phase: collects the chunks that uploads and objects refer to.

This is rule 3 of `collect`.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from itertools import groupby

from cryostore.catalog.queries import references
from cryostore.catalog.queries.references import ObjectReferences
from cryostore.catalog.rows import chunk_lists, chunks
from cryostore.core.errors import DamagedDataError
from cryostore.maintenance.garbage_collection.bloom_filter import FIRST_BYTES, DigestSet
from cryostore.maintenance.garbage_collection.run import CollectionRun
from cryostore.maintenance.progress import Progress

ROWS_PER_PAGE = 2000
OBJECTS_PER_PAGE = 500
PARTS_PER_PAGE = 50
START = (0, b"")


def mark(run: CollectionRun, count: int, share: range) -> Generator[Progress, None, DigestSet]:
    """Return the set of all chunks of a share that anything refers to, in a store of `count` chunks.

    Raises DamagedDataError if the references cannot be read in full.
    """
    expected = count * len(share) // FIRST_BYTES
    marked = DigestSet(expected, run.epoch, bytes_max=run.context.settings.collection_memory_bytes, share=share)
    yield from _mark_uploads(run, marked)
    yield Progress("mark", 0)
    yield from _mark_objects(run, marked)
    return marked


def count_chunks(run: CollectionRun) -> Generator[Progress, None, int]:
    """Count the chunks, rounded up to the next step."""
    count, after = chunks.COUNT_STEP, START
    while (found := run.read(partial(chunks.count_step, after=after))) is not None:
        count, after = count + chunks.COUNT_STEP, found
        yield Progress("count", count)
    return count


def _mark_uploads(run: CollectionRun, marked: DigestSet) -> Generator[Progress, None, None]:
    after, done = (0, -1), 0
    while rows := run.read(partial(references.upload_chunks, after=after, limit=ROWS_PER_PAGE)):
        for vault_id, some in groupby(rows, key=lambda row: row.vault_id):
            if vault_id is not None:
                marked.add(vault_id, b"".join(row.digest for row in some))
        after, done = rows[-1][:2], done + len(rows)
        yield Progress("mark", done)


def _mark_objects(run: CollectionRun, marked: DigestSet) -> Generator[Progress, None, None]:
    after, done = 0, 0
    while rows := run.read(partial(references.objects, after=after, limit=OBJECTS_PER_PAGE)):
        for row in rows:
            yield from _mark_object(run, marked, row)
        after, done = rows[-1].object_id, done + len(rows)
        yield Progress("mark", done)


def _mark_object(run: CollectionRun, marked: DigestSet, row: ObjectReferences) -> Generator[Progress, None, None]:
    if row.vault_id is None:
        raise DamagedDataError(f"object {row.object_id} belongs to no vault, so no chunk can be removed safely")
    if row.metadata_digest is not None:
        marked.add(row.vault_id, row.metadata_digest)
    if row.chunks is not None:
        marked.add(row.vault_id, chunk_lists.digests(row.chunks))
    if (list_id := row.chunk_list_id) is not None:
        first = 0
        while parts := run.read(
            partial(references.list_parts, chunk_list_id=list_id, first=first, limit=PARTS_PER_PAGE)
        ):
            for part in parts:
                marked.add(row.vault_id, chunk_lists.digests(part))
            first += len(parts)
            yield Progress("mark", row.object_id)
