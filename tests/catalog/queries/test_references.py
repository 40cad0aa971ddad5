"""References to chunks: each is on exactly one page, in the order in which garbage collection marks."""

from __future__ import annotations

from cryostore.catalog.queries import references
from cryostore.catalog.queries.references import ObjectReferences, UploadedChunk
from cryostore.catalog.rows import chunk_lists, jobs, lineages, objects, uploads
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.objects import ObjectContent
from support.catalogs.catalog_rows import job_row

A, B = b"a" * 32, b"b" * 32


def upload(catalog, upload_id, job_id, *chunks):
    """Add an upload with chunks, each an index and a digest; return its number."""

    def work(transaction):
        uploads.insert(transaction, upload_id=upload_id, job_id=job_id, name=b"n", throw_on_duplicate=False, now_ms=0)
        number = uploads.find(transaction, job_id, upload_id).upload_number
        entries = [ChunkEntry(index, 5, digest, 1) for index, digest in chunks]
        transaction.run_all([uploads.add_chunk_statement(number, entry) for entry in entries])
        return number

    return catalog.write(work)


def test_chunks_of_all_uploads_are_listed_by_upload_and_index(catalog):
    catalog.write(lambda t: jobs.insert(t, job_row("J", vault_id=2)))
    one = upload(catalog, "U", "J", (5, B), (0, A))
    other = upload(catalog, "V", "gone", (0, B))

    def page(after, limit=10):
        return catalog.read(lambda t: references.upload_chunks(t, after=after, limit=limit))

    rows = [UploadedChunk(one, 0, 2, A), UploadedChunk(one, 5, 2, B), UploadedChunk(other, 0, None, B)]
    assert page((0, -1)) == rows
    assert page((one, 0), limit=1) == rows[1:2]
    assert page((one, 5)) == rows[2:]
    assert page((other, 0)) == []


def test_an_upload_of_a_deleted_vault_has_no_vault(catalog):
    number = upload(catalog, "U", "no such job", (0, A))
    assert catalog.read(lambda t: references.upload_chunks(t, after=(0, -1), limit=10)) == [
        UploadedChunk(number, 0, None, A)
    ]


def test_objects_are_listed_by_id_whether_visible_or_not(catalog):
    lineage = catalog.write(lambda t: lineages.insert(t, 2, None))
    packed = chunk_lists.pack([ChunkEntry(0, 5, A, 1)])
    small = ObjectContent(0, 5, 1, A, 1, chunks=packed)
    large = ObjectContent(0, 5, 1, A, 1, metadata_digest=B, metadata_length=3, metadata_form=1, chunk_list_id=7)

    def work(transaction):
        first = objects.put(transaction, Segment(lineage, 1), b"n", small)
        replaced = objects.put(transaction, Segment(lineage, 2), b"n", large)
        of_nobody = objects.put(transaction, Segment(99, 1), b"n", small)
        return first, replaced, of_nobody

    first, second, third = catalog.write(work)
    rows = [
        ObjectReferences(first, 2, None, None, packed),
        ObjectReferences(second, 2, B, 7, None),
        ObjectReferences(third, None, None, None, packed),
    ]
    assert catalog.read(lambda t: references.objects(t, after=0, limit=10)) == rows
    assert catalog.read(lambda t: references.objects(t, after=first, limit=1)) == rows[1:2]
    assert catalog.read(lambda t: references.objects(t, after=third, limit=10)) == []


def test_parts_of_a_list_are_in_order(catalog):
    parts = [b"first", b"second", b"third"]
    catalog.write(lambda t: chunk_lists.insert_parts(t, 7, [(n, 1000 * n, part) for n, part in enumerate(parts)]))
    catalog.write(lambda t: chunk_lists.insert_parts(t, 8, [(0, 0, b"other")]))

    def list_parts(first, limit=10):
        return catalog.read(lambda t: references.list_parts(t, 7, first=first, limit=limit))

    assert list_parts(0) == parts
    assert list_parts(1, limit=1) == parts[1:2]
    assert list_parts(3) == []


def test_a_chunk_moves_from_its_upload_to_its_object_in_one_transaction(catalog):
    """A reader that reads uploads first and objects second misses no chunk that existed when it began."""
    lineage = catalog.write(lambda t: lineages.insert(t, 1, None))
    catalog.write(lambda t: jobs.insert(t, job_row("J")))
    number = upload(catalog, "U", "J", (0, A))
    packed = chunk_lists.pack([ChunkEntry(0, 5, A, 1)])
    seen = catalog.read(lambda t: references.upload_chunks(t, after=(0, -1), limit=10))

    def complete(transaction):
        uploads.complete(transaction, number, b"digest")
        objects.put(transaction, Segment(lineage, 1), b"n", ObjectContent(0, 5, 1, A, 1, chunks=packed))

    catalog.write(complete)
    assert [row.digest for row in seen] == [A]
    assert catalog.read(lambda t: references.upload_chunks(t, after=(0, -1), limit=10)) == []
    (found,) = catalog.read(lambda t: references.objects(t, after=0, limit=10))
    assert chunk_lists.digests(found.chunks) == A
