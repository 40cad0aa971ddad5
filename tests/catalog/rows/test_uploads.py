"""Rows of uploads and their chunks, and how they are deleted."""

from __future__ import annotations

import pytest

from cryostore.catalog.processes import epoch
from cryostore.catalog.rows import chunk_lists, chunks, jobs, objects, uploads
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.chunks import ChunkRow
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.objects import ObjectContent
from support.catalogs.catalog_rows import job_row

A = b"a" * 32


def entry(index, filler=0):
    return ChunkEntry(index, 5, bytes([filler]) * 32, 1)


def open_upload(catalog, upload_id="U", job_id="J", chunks=()):
    """Open an upload with chunks at these indexes."""

    def work(transaction):
        uploads.insert(transaction, upload_id=upload_id, job_id=job_id, name=b"n", throw_on_duplicate=False, now_ms=1)
        upload = uploads.find(transaction, job_id, upload_id)
        for index in chunks:
            number = upload.upload_number
            statements = [
                uploads.add_chunk_statement(number, entry(index)),
                uploads.count_chunk_statement(number, chunks_max=10**6),
            ]
            assert transaction.run_all(statements) == [1, 1]
        return uploads.find(transaction, job_id, upload_id)

    return catalog.write(work)


def rows(catalog):
    """Return the number of rows of uploads, chunks of uploads and parts of lists."""
    return tuple(
        catalog.read(lambda t, table=table: t.row(f"SELECT count(*) FROM {table}"))[0]
        for table in ("upload", "upload_chunk", "chunk_list")
    )


def test_an_upload_is_found_only_with_its_own_job(catalog):
    upload = open_upload(catalog)
    assert (upload.name, upload.chunk_count, upload.completion_digest) == (b"n", 0, None)
    assert catalog.read(lambda t: uploads.find(t, "J", "U")) == upload
    assert catalog.read(lambda t: uploads.find(t, "other", "U")) is None
    assert catalog.read(lambda t: uploads.find(t, "J", "other")) is None


def test_a_chunk_at_an_index_is_never_replaced(catalog):
    number = open_upload(catalog).upload_number
    assert catalog.write(lambda t: t.run_all([uploads.add_chunk_statement(number, entry(7, 1))])) == [1]
    assert catalog.write(lambda t: t.run_all([uploads.add_chunk_statement(number, entry(7, 2))])) == [0]
    assert catalog.read(lambda t: uploads.chunk(t, number, 7)) == entry(7, 1)
    assert catalog.read(lambda t: uploads.chunk(t, number, 8)) is None


def test_chunks_are_counted_up_to_the_limit_while_the_upload_is_open(catalog):
    number = open_upload(catalog).upload_number
    count = uploads.count_chunk_statement(number, chunks_max=2)
    assert [catalog.write(lambda t: t.run_all([count])) for _ in range(3)] == [[1], [1], [0]]
    catalog.write(lambda t: uploads.complete(t, number, b"digest"))
    assert catalog.write(lambda t: t.run_all([uploads.count_chunk_statement(number, chunks_max=10)])) == [0]
    assert catalog.read(lambda t: uploads.find(t, "J", "U")).chunk_count == 2


def test_pages_of_chunks_are_in_index_order(catalog):
    indexes = [2**63 - 1, 5, 0, 1000, 6]
    number = open_upload(catalog, chunks=indexes).upload_number
    open_upload(catalog, "other", chunks=[3])
    found, after = [], -1
    while page := catalog.read(lambda t, after=after: uploads.chunk_page(t, number, after=after, limit=2)):
        found += [one.chunk_index for one in page]
        after = found[-1]
    assert found == sorted(indexes)


def test_open_uploads_are_counted_per_job(catalog):
    open_upload(catalog, "1")
    open_upload(catalog, "2", job_id="K")
    done = open_upload(catalog, "3").upload_number
    catalog.write(lambda t: uploads.complete(t, done, b"digest"))
    assert [catalog.read(lambda t, job=job: uploads.counts(t, job)).open for job in "JKL"] == [1, 1, 0]


def test_a_completed_upload_keeps_its_digest_and_no_chunks(catalog):
    upload = open_upload(catalog, chunks=range(10))
    catalog.write(lambda t: uploads.complete(t, upload.upload_number, b"digest"))
    after = catalog.read(lambda t: uploads.find(t, "J", "U"))
    assert (after.completion_digest, after.chunk_count) == (b"digest", 10)
    assert rows(catalog) == (1, 0, 0)


def test_the_rest_of_a_large_completed_upload_is_deleted_with_its_job(catalog, monkeypatch):
    """The completion deletes only a limited number of rows."""
    monkeypatch.setattr(uploads, "CHUNKS_AT_COMPLETION", 4)
    upload = open_upload(catalog, chunks=range(10))
    catalog.write(lambda t: uploads.complete(t, upload.upload_number, b"digest"))
    assert rows(catalog) == (1, 6, 0)
    assert catalog.write(lambda t: uploads.delete_of_job(t, "J", 100))
    assert rows(catalog) == (0, 0, 0)


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
def test_uploads_of_a_job_are_deleted_in_limited_steps(catalog, limit):
    """Chunks, parts of unfinished completions and uploads count as rows; those of other jobs are kept."""
    for upload_id in "123":
        number = open_upload(catalog, upload_id, chunks=range(4)).upload_number
        catalog.write(lambda t, number=number: chunk_lists.insert_parts(t, number, [(0, 0, b""), (1, 9, b"")]))
    open_upload(catalog, "other", job_id="K", chunks=[1])
    left, done = sum(rows(catalog)), False
    while not done:
        done = catalog.write(lambda t: uploads.delete_of_job(t, "J", limit))
        now = sum(rows(catalog))
        assert left - limit <= now
        assert now < left or done
        left = now
    assert rows(catalog) == (1, 1, 0)


def test_a_chunk_list_that_belongs_to_an_object_outlives_its_upload(catalog):
    number = open_upload(catalog).upload_number

    def complete(transaction):
        chunk_lists.insert_parts(transaction, number, [(0, 0, b""), (1, 9, b"")])
        objects.put(transaction, Segment(1, 1), b"n", ObjectContent(0, 0, 2, bytes(32), 0, chunk_list_id=number))
        uploads.complete(transaction, number, b"digest")

    catalog.write(complete)
    assert catalog.write(lambda t: uploads.delete_of_job(t, "J", 100))
    assert rows(catalog) == (0, 0, 2)


def test_an_unused_chunk_list_is_deleted_with_its_upload(catalog):
    """It is left over when the completion committed the job instead."""
    number = open_upload(catalog).upload_number

    def complete(transaction):
        chunk_lists.insert_parts(transaction, number, [(0, 0, b"")])
        uploads.complete(transaction, number, b"digest")

    catalog.write(complete)
    assert catalog.write(lambda t: uploads.delete_of_job(t, "J", 100))
    assert rows(catalog) == (0, 0, 0)


def test_upload_numbers_are_never_reused(catalog):
    """Chunk lists are named after them."""
    first = open_upload(catalog).upload_number
    catalog.write(lambda t: uploads.delete_of_job(t, "J", 100))
    assert open_upload(catalog).upload_number > first


def test_jobs_with_uploads_are_listed_once_each(catalog):
    for job in ("J", "K", "L"):
        catalog.write(lambda t, job=job: jobs.insert(t, job_row(job, completed_ms=None if job == "K" else 5)))
        for number in range(3):
            open_upload(catalog, f"{job}{number}", job_id=job)
    open_upload(catalog, "M", job_id="gone")
    with_uploads = catalog.read(lambda t: list(uploads.jobs_with_uploads(t)))
    assert sorted(with_uploads) == ["J", "K", "L", "gone"]
    ended = catalog.read(lambda t: [job for job in with_uploads if jobs.has_ended(t, job)])
    assert sorted(ended) == ["J", "L", "gone"]


# --- what PutChunk must know of an arriving chunk, in one statement


def arrival(catalog, job_id="J", upload_id="U", index=0, digest=A):
    return catalog.read(lambda t: uploads.find_arrival(t, job_id, upload_id, index, digest))


def add_job(catalog):
    catalog.write(lambda t: jobs.insert(t, job_row("J")))


def add_upload(catalog, *entries, job_id="J"):
    def work(transaction):
        uploads.insert(transaction, upload_id="U", job_id=job_id, name=b"n", throw_on_duplicate=False, now_ms=0)
        upload = uploads.find(transaction, job_id, "U")
        transaction.run_all([uploads.add_chunk_statement(upload.upload_number, entry) for entry in entries])
        return upload

    return catalog.write(work)


def test_without_a_job_there_is_no_arrival(catalog):
    assert arrival(catalog) is None


def test_a_job_without_the_upload(catalog):
    add_job(catalog)
    catalog.write(lambda t: jobs.insert(t, job_row("other")))
    add_upload(catalog, job_id="other")
    found = arrival(catalog)
    assert found.job == job_row("J")
    assert (found.upload, found.present, found.held, found.epoch) == (None, None, False, 0)


def test_an_arrival_has_the_upload_and_the_chunk_at_the_index(catalog):
    add_job(catalog)
    entry = ChunkEntry(3, 5, A, 1)
    upload = add_upload(catalog, entry)
    assert arrival(catalog, index=3)._replace(job=None) == (None, upload, entry, False, 0)
    assert arrival(catalog, index=4).present is None


def test_an_arrival_tells_whether_the_vault_has_the_bytes(catalog):
    add_job(catalog)
    row = ChunkRow(1, "p", 0, 50, 5)
    catalog.write(lambda t: chunks.insert(t, 1, A, row, epoch=0, now_ms=0))
    catalog.write(epoch.next_epoch)
    found = arrival(catalog)
    assert (found.held, found.epoch) == (True, 1)
    assert not arrival(catalog, digest=b"b" * 32).held
    catalog.write(lambda t: chunks.condemn(t, 1, A, epoch=1, now_ms=5))
    assert not arrival(catalog).held, "a condemned chunk does not count"
