"""Restore jobs nobody reads from any more."""

from __future__ import annotations

from cryostore.catalog.rows import restore_jobs as rows
from cryostore.core.time import HOUR_MS
from cryostore.maintenance.duties import restore_jobs

IDLE_MS = 24 * HOUR_MS


def test_a_restore_without_a_read_for_a_day_is_aborted(model, snapshot):
    """And its point can be deleted."""
    point = model.commit(model.put(model.run(), b"a"))
    model.restore(point)
    (job_id,) = point.restores
    model.clock.advance(IDLE_MS - 5)
    model.database.write(lambda t: rows.touch(t, job_id, now_ms=model.clock()))
    model.clock.advance(IDLE_MS)
    before = snapshot()
    restore_jobs.end_idle(model.context)
    assert snapshot() == before
    model.delete(point)
    assert not point.deleting
    model.clock.advance(1)
    restore_jobs.end_idle(model.context)
    row = model.database.read(lambda t: rows.find(t, job_id))
    assert (row.status, row.completed_ms) == ("ABORTED", model.clock())
    point.restores.clear()
    model.delete(point)
    assert point.deleting


def test_others_are_left_alone(model, snapshot):
    """Ended restores, and everything that is no restore."""
    point = model.commit(model.put(model.run(), b"a"))
    model.restore(point)
    model.restore(point)
    model.start()
    model.clock.advance(10 * IDLE_MS)
    before = snapshot()
    restore_jobs.end_idle(model.context)
    assert snapshot() == before
