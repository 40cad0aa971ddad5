"""Everything that PutChunk must know of an arriving chunk, in one statement."""

from __future__ import annotations

from cryostore.catalog.processes import epoch
from cryostore.catalog.queries import arrivals
from cryostore.catalog.rows import chunks, jobs, uploads
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.chunks import ChunkRow
from support.catalogs.catalog_rows import job_row

A = b"a" * 32


def find(catalog, job_id="J", upload_id="U", index=0, digest=A):
    return catalog.read(lambda t: arrivals.find(t, job_id, upload_id, index, digest))


def add_job(catalog):
    catalog.write(lambda t: jobs.insert(t, job_row("J")))


def add_upload(catalog, *entries, job_id="J"):
    def work(transaction):
        uploads.insert(transaction, upload_id="U", job_id=job_id, name=b"n", throw_on_duplicate=False, now_ms=0)
        upload = uploads.find(transaction, job_id, "U")
        transaction.run_all([uploads.add_chunk_statement(upload.upload_number, entry) for entry in entries])
        return upload

    return catalog.write(work)


def test_no_job_no_arrival(catalog):
    assert find(catalog) is None


def test_a_job_without_the_upload(catalog):
    add_job(catalog)
    catalog.write(lambda t: jobs.insert(t, job_row("other")))
    add_upload(catalog, job_id="other")
    arrival = find(catalog)
    assert arrival.job == job_row("J")
    assert (arrival.upload, arrival.present, arrival.held, arrival.epoch) == (None, None, False, 0)


def test_the_upload_and_the_chunk_at_the_index(catalog):
    add_job(catalog)
    entry = ChunkEntry(3, 5, A, 1)
    upload = add_upload(catalog, entry)
    assert find(catalog, index=3)._replace(job=None) == (None, upload, entry, False, 0)
    assert find(catalog, index=4).present is None


def test_bytes_that_the_vault_holds(catalog):
    add_job(catalog)
    row = ChunkRow(1, "p", 0, 50, 5)
    catalog.write(lambda t: chunks.insert(t, 1, A, row, epoch=0, now_ms=0))
    catalog.write(epoch.next_epoch)
    arrival = find(catalog)
    assert (arrival.held, arrival.epoch) == (True, 1)
    assert not find(catalog, digest=b"b" * 32).held
    catalog.write(lambda t: chunks.condemn(t, 1, A, epoch=1, now_ms=5))
    assert not find(catalog).held, "a condemned chunk is not offered"
