"""Rows of lineages: generations, views and neighbours. Their interplay is tested in tests/stateful."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import jobs, lineages, recovery_points
from cryostore.catalog.rows.lineages import Segment
from support.catalogs.catalog_rows import job_row, point_row


def lineage(catalog, parent=None):
    return catalog.write(lambda t: lineages.insert(t, 1, parent))


def see(catalog, lineage_id, *generations, status="COMPLETED"):
    """Add points that see these generations."""
    for generation in generations:
        row = point_row(f"P{lineage_id}-{generation}", status=status, lineage_id=lineage_id, generation=generation)
        catalog.write(lambda t, row=row: recovery_points.insert(t, row))


def neighbours(catalog, lineage_id, generation):
    return catalog.read(lambda t: lineages.neighbours(t, Segment(lineage_id, generation)))


def test_a_generation_is_never_reused(catalog):
    one, other = lineage(catalog), lineage(catalog)
    taken = [catalog.write(lambda t: lineages.take_generation(t, one)) for _ in range(3)]
    assert taken == [1, 2, 3]
    assert catalog.write(lambda t: lineages.take_generation(t, other)) == 1


def test_a_failed_transaction_does_not_consume_a_generation(catalog):
    one = lineage(catalog)

    def work(transaction):
        lineages.take_generation(transaction, one)
        raise KeyError

    with pytest.raises(KeyError):
        catalog.write(work)
    assert catalog.write(lambda t: lineages.take_generation(t, one)) == 1


def test_a_view_includes_every_ancestor(catalog):
    root = lineage(catalog)
    branch = lineage(catalog, Segment(root, 4))
    twig = lineage(catalog, Segment(branch, 2))
    view = catalog.read(lambda t: lineages.view(t, Segment(twig, 7)))
    assert view == (Segment(twig, 7), Segment(branch, 2), Segment(root, 4))
    assert catalog.read(lambda t: lineages.find(t, twig)).parent == Segment(branch, 2)
    assert catalog.read(lambda t: lineages.find(t, root)).parent is None
    assert catalog.read(lambda t: lineages.find(t, 99)) is None


def test_neighbours_are_the_nearest_seen_generations(catalog):
    one, other = lineage(catalog), lineage(catalog)
    see(catalog, one, 2, 5, 9)
    see(catalog, other, 3, 4, 6)
    wanted = {1: (0, 2), 2: (2, 5), 3: (2, 5), 5: (5, 9), 8: (5, 9), 9: (9, None), 20: (9, None)}
    assert {generation: neighbours(catalog, one, generation) for generation in wanted} == wanted


def test_points_jobs_and_lineages_see_a_generation(catalog):
    """Points, open jobs and child lineages see it; points being deleted, ended jobs and retired lineages do not."""
    one = lineage(catalog)
    see(catalog, one, 10)
    see(catalog, one, 20, status="DELETING")
    for generation, state, completed_ms in [(30, "RUNNING", None), (35, "ABORTING", None), (40, "FAILED", 5)]:
        row = job_row(state, state=state, completed_ms=completed_ms, lineage_id=one, generation=generation)
        catalog.write(lambda t, row=row: jobs.insert(t, row))
    lineage(catalog, Segment(one, 50))
    gone = lineage(catalog, Segment(one, 60))
    catalog.write(lambda t: lineages.retire(t, gone))
    catalog.write(lambda t: lineages.set_dirty(t, Segment(one, 40)))
    seen, generation = [], 0
    while (generation := neighbours(catalog, one, generation)[1]) is not None:
        seen.append(generation)
    assert seen == [10, 30, 35, 50]


def test_points_jobs_lineages_and_objects_need_a_lineage(catalog):
    assert not catalog.read(lambda t: lineages.is_needed(t, lineage_id=1))
    by_point, by_job, by_branch, by_rows, by_nobody = (lineage(catalog) for _ in range(5))
    see(catalog, by_point, 1, status="DELETING")
    catalog.write(lambda t: jobs.insert(t, job_row(state="RUNNING", lineage_id=by_job, generation=1)))
    ended = job_row("E", state="FAILED", completed_ms=1, lineage_id=by_nobody, generation=1)
    catalog.write(lambda t: jobs.insert(t, ended))
    lineage(catalog, Segment(by_branch, 1))
    catalog.write(
        lambda t: t.run(
            "INSERT INTO object (lineage_id, name, from_generation, to_generation, removed, created_ms, length,"
            " chunk_count, summary_form) VALUES (:one, :name, 1, 2, 0, 0, 0, 0, 0)",
            one=by_rows,
            name=b"a",
        )
    )
    needed = [catalog.read(lambda t, one=one: lineages.is_needed(t, one)) for one in range(by_point, by_nobody + 1)]
    assert needed == [True, True, True, True, False]


def test_tips_and_dirty_or_retired_lineages_are_kept(catalog):
    one, other = lineage(catalog), lineage(catalog)
    assert catalog.read(lambda t: lineages.dirty(t, 10)) == []
    assert catalog.read(lineages.first_retired) is None
    catalog.write(lambda t: lineages.set_tip(t, Segment(one, 3)))
    catalog.write(lambda t: lineages.set_dirty(t, Segment(one, 4)))
    catalog.write(lambda t: lineages.retire(t, other))
    row = catalog.read(lambda t: lineages.find(t, one))
    assert (row.tip_generation, row.dirty_generation, row.retired) == (3, 4, 0)
    assert catalog.read(lambda t: lineages.dirty(t, 10)) == [Segment(one, 4)]
    assert catalog.read(lineages.first_retired).lineage_id == other
    catalog.write(lambda t: lineages.set_clean(t, one))
    catalog.write(lambda t: lineages.delete(t, other))
    assert catalog.read(lambda t: lineages.dirty(t, 10)) == []
    assert catalog.read(lineages.first_retired) is None
