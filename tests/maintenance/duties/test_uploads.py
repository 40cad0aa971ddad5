"""Uploads of ended jobs go, those of open jobs stay."""

from __future__ import annotations

from cryostore.catalog.rows import uploads as rows
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.maintenance.duties import uploads


def open_upload(model, job_id, chunks):
    def work(transaction):
        rows.insert(transaction, upload_id=f"U-{job_id}", job_id=job_id, name=b"n", throw_on_duplicate=False, now_ms=0)
        number = rows.find(transaction, job_id, f"U-{job_id}").upload_number
        for index in range(chunks):
            rows.add_chunk(transaction, number, ChunkEntry(index, 1, bytes(32), 0))

    model.database.write(work)


def left(model):
    return model.database.read(lambda t: [row[0] for row in t.rows("SELECT job_id FROM upload ORDER BY job_id")])


def test_uploads_of_ended_jobs_go(model):
    """Of jobs that are gone with their vault, too."""
    waiting, running = model.start(), model.run()
    ended = model.run("arn:aws:ec2:x:0:volume/b")
    model.end(ended)
    for job_id in (waiting.job_id, running.job_id, ended.job_id, "gone"):
        open_upload(model, job_id, 3)
    uploads.delete_of_ended_jobs(model.context)
    assert left(model) == sorted([waiting.job_id, running.job_id])
    assert model.database.read(lambda t: t.row("SELECT count(*) FROM upload_chunk")) == (6,)


def test_a_round_takes_so_much_and_the_next_goes_on(model, monkeypatch):
    monkeypatch.setattr(uploads, "BATCHES_PER_JOB", 1)
    open_upload(model, "gone", 7)
    rounds = 0
    while left(model):
        uploads.delete_of_ended_jobs(model.context)
        rounds += 1
    assert rounds == 4
