"""Rows of backup jobs: guarded state changes, overdue jobs, and lists page by page."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import jobs
from cryostore.catalog.rows.lineages import Segment
from support.catalogs.catalog_rows import job_row

STATES = ["CREATED", "PENDING", "RUNNING", "ABORTING", "COMPLETED", "FAILED", "ABORTED", "EXPIRED"]
ENDED = STATES[4:]


def add(catalog, job_id, state="CREATED", **values):
    """Add a job in this state, with the columns of that state."""
    known = {"completed_ms": 9} if state in ENDED else {}
    if state in {"RUNNING", "ABORTING", "COMPLETED"}:
        known |= {"lineage_id": 1, "generation": 1}
    catalog.write(lambda t: jobs.insert(t, job_row(job_id, state=state, **known, **values)))


def state(catalog, job_id):
    return catalog.read(lambda t: jobs.find(t, job_id)).state


def test_a_job_reads_back(catalog):
    row = job_row("J", resource_name="é", commit_digest=bytes(32), lifecycle="{}", bytes_transferred=2**62)
    catalog.write(lambda t: jobs.insert(t, row))
    assert catalog.read(lambda t: jobs.find(t, "J")) == row
    assert catalog.read(lambda t: jobs.find(t, "j")) is None
    assert row.segment is None
    assert row._replace(lineage_id=2, generation=3).segment == Segment(2, 3)


@pytest.mark.parametrize("before", STATES)
def test_each_transition_is_possible_from_its_own_states_only(catalog, before):
    """A late or repeated transition changes nothing."""
    run = {"base_selection": "NONE", "base_point_id": None, "now_ms": 5}
    steps = {
        "PENDING": (lambda t: jobs.queue(t, "PENDING"), ["CREATED"]),
        "RUNNING": (lambda t: jobs.run(t, "RUNNING", Segment(1, 2), **run), ["CREATED", "PENDING"]),
        "ABORTING": (lambda t: jobs.abort(t, "ABORTING", "why"), ["RUNNING"]),
        "FAILED": (lambda t: jobs.end(t, "FAILED", "FAILED", now_ms=5), STATES[:4]),
    }
    for after, (step, possible) in steps.items():
        add(catalog, after, before)
        catalog.write(step)
        assert state(catalog, after) == (after if before in possible else before)


@pytest.mark.parametrize("before", STATES)
def test_only_a_running_job_is_touched(catalog, before):
    add(catalog, "J", before)
    touched = catalog.write(lambda t: jobs.touch(t, "J", bytes_transferred=7, now_ms=5, changes=1))
    assert touched == (before == "RUNNING")
    row = catalog.read(lambda t: jobs.find(t, "J"))
    assert (row.bytes_transferred, row.active_ms, row.revision) == ((7, 5, 1) if touched else (0, 0, 0))
    assert not catalog.write(lambda t: jobs.touch(t, "nobody", bytes_transferred=7, now_ms=5))


@pytest.mark.parametrize("other", STATES)
def test_a_resource_is_busy_while_a_job_runs_or_aborts(catalog, other):
    add(catalog, "J", other)
    assert (catalog.read(lambda t: jobs.running(t, 1, "arn:r")) is not None) == (other in {"RUNNING", "ABORTING"})
    assert catalog.read(lambda t: jobs.running(t, 2, "arn:r")) is None
    assert catalog.read(lambda t: jobs.running(t, 1, "arn:other")) is None


@pytest.mark.parametrize("other", STATES)
def test_a_base_is_pinned_until_its_job_has_ended(catalog, other):
    add(catalog, "J", other, base_point_id="P")
    assert catalog.read(lambda t: jobs.open_job_on_base(t, "P")) == (None if other in ENDED else "J")
    assert catalog.read(lambda t: jobs.open_job_on_base(t, "Q")) is None


def test_the_end_of_a_job_sets_its_columns_once(catalog):
    add(catalog, "J", "RUNNING")
    catalog.write(lambda t: jobs.end(t, "J", "COMPLETED", now_ms=5, size_bytes=3, resource_name="n"))
    catalog.write(lambda t: jobs.end(t, "J", "FAILED", now_ms=6, size_bytes=4))
    catalog.write(lambda t: jobs.set_commit_digest(t, "J", b"digest"))
    row = catalog.read(lambda t: jobs.find(t, "J"))
    assert (row.state, row.completed_ms, row.size_bytes, row.resource_name) == ("COMPLETED", 5, 3, "n")
    assert row.commit_digest == b"digest"


def test_aborting_jobs_are_found(catalog):
    for number, one in enumerate(STATES):
        add(catalog, f"{one}{number}", one)
    assert catalog.read(lambda t: jobs.aborting_in(t, 1)) == ["ABORTING3"]
    assert catalog.read(lambda t: jobs.aborting_in(t, 2)) == []


@pytest.mark.parametrize("one", STATES)
def test_overdue_jobs_are_found(catalog, one):
    """Waiting jobs past their start window; running jobs past their end or silent. None at the exact limit."""
    windows = {"start": 100, "complete": 200, "active": 150}
    for late in ("start", "complete", "active", "none"):
        at = {name: time - 1 if name == late else time for name, time in windows.items()}
        add(
            catalog, f"late {late}", one, start_by_ms=at["start"], complete_by_ms=at["complete"], active_ms=at["active"]
        )
    waiting, running = one in {"CREATED", "PENDING"}, one == "RUNNING"

    def overdue(now_ms):
        rows = catalog.read(lambda t: jobs.overdue(t, now_ms=now_ms, idle_before_ms=now_ms - 50, limit=10))
        return sorted(row.job_id for row in rows)

    assert overdue(100) == (["late start"] if waiting else [])
    assert len(overdue(101)) == (4 if waiting else 0)
    expected = ["late active", "late complete"] if running else []
    assert overdue(200) == (expected if not waiting else overdue(101))


def test_at_most_limit_overdue_jobs_are_returned(catalog):
    for number in range(5):
        add(catalog, str(number))
    assert len(catalog.read(lambda t: jobs.overdue(t, now_ms=1, idle_before_ms=0, limit=3))) == 3


def test_lists_are_newest_first_and_resume(catalog):
    """Jobs of one millisecond are sorted by id, so that none is repeated or omitted."""
    for number, created_ms in enumerate([5, 7, 7, 7, 9, 5]):
        add(catalog, f"J{number}", created_ms=created_ms, resource_arn=f"arn:{number % 2}")
    for limit in range(1, 8):
        found, before = [], None
        while rows := catalog.read(
            lambda t, before=before, limit=limit: jobs.page(t, conditions={}, before=before, limit=limit)
        ):
            found += [row.job_id for row in rows]
            before = (rows[-1].created_ms, rows[-1].job_id)
        assert found == ["J4", "J3", "J2", "J1", "J5", "J0"]
    conditions = {"arn": ("resource_arn = :arn", "arn:1"), "from_ms": ("created_ms >= :from_ms", 7)}
    rows = catalog.read(lambda t: jobs.page(t, conditions=conditions, before=None, limit=10))
    assert [row.job_id for row in rows] == ["J3", "J1"]
