"""Time-outs of backup jobs and restore jobs, exact to the millisecond; uploads of ended jobs are deleted."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import recovery_points, restore_jobs, uploads
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.core.time import DAY_MS, HOUR_MS, MINUTE_MS
from cryostore.maintenance import background_tasks
from cryostore.service.lineages import start_job
from support.stores.in_process import opened

START_MS = 480 * MINUTE_MS
COMPLETE_MS = 10_080 * MINUTE_MS
IDLE_MS = 60 * MINUTE_MS
IDLE_RESTORE_MS = 24 * HOUR_MS


def point_of(model, job):
    point_id = model.row(job).point_id
    return model.database.read(lambda t: recovery_points.find(t, point_id))


@pytest.mark.parametrize("queued", [False, True])
def test_a_waiting_job_expires_after_its_start_window(model, snapshot, queued):
    """So does a job that is queued behind another one."""
    running = model.run() if queued else None
    job = model.start()
    if queued:
        model.touch(job)
        model.end(running, "stop")
        model.clean(model.dirty()[0], 10)
    model.clock.advance(START_MS)
    before = snapshot()
    background_tasks.end_overdue_backup_jobs(model.context)
    assert snapshot() == before
    model.clock.advance(1)
    background_tasks.end_overdue_backup_jobs(model.context)
    row = model.row(job)
    assert (row.state, row.completed_ms, row.message_category) == ("EXPIRED", model.clock(), "Timeout")
    assert "start window" in row.status_message
    assert point_of(model, job) is None
    job.state = "EXPIRED"
    model.stays_ended(job)


def test_a_busy_job_expires_after_its_completion_window(model, snapshot):
    job = model.put(model.run(), b"a")
    started_ms = model.row(job).created_ms
    while model.clock() + IDLE_MS < started_ms + COMPLETE_MS:
        model.clock.advance(IDLE_MS - 1)
        model.put(job, b"a")
    model.clock.now_ms = started_ms + COMPLETE_MS
    before = snapshot()
    background_tasks.end_overdue_backup_jobs(model.context)
    assert snapshot() == before
    model.clock.advance(1)
    background_tasks.end_overdue_backup_jobs(model.context)
    row = model.row(job)
    assert (row.state, row.message_category) == ("EXPIRED", "Timeout")
    assert "completion window" in row.status_message
    assert model.dirty() == [row.segment]
    job.state = "EXPIRED"


def test_an_idle_backup_job_fails(model, snapshot):
    """The time counts from its last write, not from its start."""
    job = model.run()
    model.clock.advance(IDLE_MS - 1)
    model.put(job, b"a")
    model.clock.advance(IDLE_MS)
    before = snapshot()
    background_tasks.end_overdue_backup_jobs(model.context)
    assert snapshot() == before
    model.clock.advance(1)
    background_tasks.end_overdue_backup_jobs(model.context)
    row = model.row(job)
    assert (row.state, row.completed_ms, row.message_category) == ("FAILED", model.clock(), "Timeout")
    assert "no heartbeat" in row.status_message
    assert point_of(model, job) is None
    assert model.dirty() == [row.segment]
    job.state = "FAILED"
    model.stays_ended(job)


def test_an_ended_job_releases_its_incremental_base(model):
    point = model.commit(model.put(model.run(), b"a"))
    job = model.run()
    waiting = model.start(base=point)
    model.delete(point)
    assert not point.deleting
    model.clock.advance(START_MS + 1)
    background_tasks.end_overdue_backup_jobs(model.context)
    job.state, waiting.state = "FAILED", "EXPIRED"
    model.delete(point)
    assert point.deleting


def test_nothing_else_is_ended(model, snapshot):
    """Ended jobs, jobs being stopped, recovery points and restores stay as they are, whatever their age."""
    point = model.commit(model.put(model.run(), b"a"))
    model.restore(point)
    model.end(model.put(model.run(), b"b"), "stop")
    (job,) = model.open_jobs("ABORTING")
    model.clock.advance(2 * COMPLETE_MS)
    before = snapshot()
    background_tasks.end_overdue_backup_jobs(model.context)
    assert snapshot() == before
    model.clean(model.dirty()[0], 10)
    assert model.row(job).state == "ABORTED"


def test_a_clock_set_back_ends_no_job(model, snapshot):
    model.put(model.run(), b"a")
    model.start()
    model.clock.advance(-10 * COMPLETE_MS)
    before = snapshot()
    background_tasks.end_overdue_backup_jobs(model.context)
    assert snapshot() == before


def test_many_overdue_jobs_take_several_rounds(model, monkeypatch):
    monkeypatch.setattr(background_tasks, "JOBS_PER_ROUND", 2)
    waiting = [model.start() for _ in range(5)]
    model.clock.advance(START_MS + 1)
    left = []
    for _ in range(3):
        background_tasks.end_overdue_backup_jobs(model.context)
        left.append(sum(model.row(job).state == "CREATED" for job in waiting))
    assert left == [3, 1, 0]
    for job in waiting:
        job.state = "EXPIRED"


def test_a_write_before_the_round_keeps_the_job_alive(model):
    """A job is read and ended in one transaction, so no write can come in between."""
    job = model.run()
    model.clock.advance(IDLE_MS + 1)
    model.put(job, b"a")
    background_tasks.end_overdue_backup_jobs(model.context)
    assert model.row(job).state == "RUNNING"
    assert start_job(model.context, model.row(job)).state == "RUNNING"


def test_ended_jobs_are_forgotten_once_they_are_no_longer_listed(tmp_path):
    """Completed and failed backup jobs, and restore jobs. Recovery points stay."""
    with opened(tmp_path / "data") as store:
        api = store.api()
        arn = api.backup({"a": b"1"})
        api.end_restore(api.restore(arn))
        api.stop(api.running_job())
        days = store.service.context.settings.listed_jobs_ms // DAY_MS
        for left in (3, 0):
            store.clock.advance(days // 2 * DAY_MS + DAY_MS)
            store.maintain()
            ended = store.service.context.database.read(
                lambda t: t.rows(
                    "SELECT job_id FROM backup_job WHERE completed_ms IS NOT NULL"
                    " UNION ALL SELECT job_id FROM restore_job WHERE completed_ms IS NOT NULL"
                )
            )
            assert len(ended) == left
        assert store.rebuild().losses == []
        assert store.api().restored(arn) == {"a": b"1"}


def test_a_restore_job_without_a_read_for_a_day_is_aborted(model, snapshot):
    """Then its recovery point can be deleted."""
    point = model.commit(model.put(model.run(), b"a"))
    model.restore(point)
    (job_id,) = point.restores
    model.clock.advance(IDLE_RESTORE_MS - 5)
    model.database.write(lambda t: restore_jobs.touch(t, job_id, now_ms=model.clock()))
    model.clock.advance(IDLE_RESTORE_MS)
    before = snapshot()
    background_tasks.end_idle_restore_jobs(model.context)
    assert snapshot() == before
    model.delete(point)
    assert not point.deleting
    model.clock.advance(1)
    background_tasks.end_idle_restore_jobs(model.context)
    row = model.database.read(lambda t: restore_jobs.find(t, job_id))
    assert (row.status, row.completed_ms) == ("ABORTED", model.clock())
    point.restores.clear()
    model.delete(point)
    assert point.deleting


def test_only_idle_restore_jobs_are_aborted(model, snapshot):
    """Ended restore jobs and all other rows stay as they are."""
    point = model.commit(model.put(model.run(), b"a"))
    model.restore(point)
    model.restore(point)
    model.start()
    model.clock.advance(10 * IDLE_RESTORE_MS)
    before = snapshot()
    background_tasks.end_idle_restore_jobs(model.context)
    assert snapshot() == before


def open_upload(model, job_id, chunks):
    def work(transaction):
        uploads.insert(
            transaction, upload_id=f"U-{job_id}", job_id=job_id, name=b"n", throw_on_duplicate=False, now_ms=0
        )
        number = uploads.find(transaction, job_id, f"U-{job_id}").upload_number
        for index in range(chunks):
            transaction.run_all([uploads.add_chunk_statement(number, ChunkEntry(index, 1, bytes(32), 0))])

    model.database.write(work)


def jobs_with_uploads(model):
    return model.database.read(lambda t: [row[0] for row in t.rows("SELECT job_id FROM upload ORDER BY job_id")])


def test_uploads_of_ended_jobs_are_deleted(model):
    """Also those of jobs that were removed with their vault."""
    waiting, running = model.start(), model.run()
    ended = model.run("arn:aws:ec2:x:0:volume/b")
    model.end(ended)
    for job_id in (waiting.job_id, running.job_id, ended.job_id, "gone"):
        open_upload(model, job_id, 3)
    background_tasks.delete_uploads_of_ended_jobs(model.context)
    assert jobs_with_uploads(model) == sorted([waiting.job_id, running.job_id])
    assert model.database.read(lambda t: t.row("SELECT count(*) FROM upload_chunk")) == (6,)


def test_a_round_deletes_a_bounded_part_of_an_upload(model, monkeypatch):
    monkeypatch.setattr(background_tasks, "BATCHES_PER_JOB", 1)
    open_upload(model, "gone", 7)
    rounds = 0
    while jobs_with_uploads(model):
        background_tasks.delete_uploads_of_ended_jobs(model.context)
        rounds += 1
    assert rounds == 4
