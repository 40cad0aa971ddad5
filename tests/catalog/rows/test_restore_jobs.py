"""Rows of restore jobs."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import restore_jobs
from cryostore.catalog.rows.lineages import Segment
from support.catalogs.catalog_rows import restore_job_row


def add(catalog, job_id, **values):
    catalog.write(lambda t: restore_jobs.insert(t, restore_job_row(job_id, **values)))


def find(catalog, job_id):
    return catalog.read(lambda t: restore_jobs.find(t, job_id))


def test_a_job_pins_its_point_until_it_ends(catalog):
    add(catalog, "R")
    assert find(catalog, "R").segment == Segment(1, 1)
    assert catalog.read(lambda t: restore_jobs.open_job_of_point(t, "P")) == "R"
    assert catalog.read(lambda t: restore_jobs.open_job_of_point(t, "Q")) is None
    catalog.write(lambda t: restore_jobs.end(t, "R", "COMPLETED", now_ms=5, created_resource_arn="arn:new"))
    assert catalog.read(lambda t: restore_jobs.open_job_of_point(t, "P")) is None


def test_an_ended_job_never_changes(catalog):
    add(catalog, "R")
    catalog.write(lambda t: restore_jobs.end(t, "R", "FAILED", now_ms=5, status_message="why"))
    catalog.write(lambda t: restore_jobs.touch(t, "R", now_ms=6))
    catalog.write(lambda t: restore_jobs.end(t, "R", "COMPLETED", now_ms=7))
    row = find(catalog, "R")
    assert (row.status, row.status_message, row.completed_ms, row.active_ms) == ("FAILED", "why", 5, 0)


@pytest.mark.parametrize(("active_ms", "completed_ms", "idle"), [(9, None, True), (10, None, False), (9, 9, False)])
def test_a_job_without_a_heartbeat_is_idle(catalog, active_ms, completed_ms, idle):
    add(catalog, "R", active_ms=active_ms, completed_ms=completed_ms)
    assert catalog.read(lambda t: restore_jobs.idle(t, idle_before_ms=10, limit=5)) == (["R"] if idle else [])


def test_a_touch_starts_a_job_and_is_a_heartbeat(catalog):
    add(catalog, "R")
    catalog.write(lambda t: restore_jobs.touch(t, "R", now_ms=6))
    assert (find(catalog, "R").status, find(catalog, "R").active_ms) == ("RUNNING", 6)


def test_lists_are_newest_first_and_resume(catalog):
    for number, created_ms in enumerate([5, 7, 7, 9]):
        add(catalog, f"R{number}", created_ms=created_ms)
    found, before = [], None
    while rows := catalog.read(lambda t, before=before: restore_jobs.page(t, conditions={}, before=before, limit=3)):
        found += [row.job_id for row in rows]
        before = (rows[-1].created_ms, rows[-1].job_id)
    assert found == ["R3", "R2", "R1", "R0"]
