"""Rows of recovery points."""

from __future__ import annotations

from cryostore.catalog.rows import recovery_points
from cryostore.catalog.rows.lineages import Segment
from support.catalogs.catalog_rows import point_row


def add(catalog, point_id, **values):
    catalog.write(lambda t: recovery_points.insert(t, point_row(point_id, **values)))


def find(catalog, point_id):
    return catalog.read(lambda t: recovery_points.find(t, point_id))


def test_a_point_is_completed_and_deleted(catalog):
    add(catalog, "P", tags='{"a": "é"}')
    assert find(catalog, "P").segment is None
    catalog.write(lambda t: recovery_points.complete(t, "P", Segment(3, 4), completed_ms=9, size_bytes=7))
    row = find(catalog, "P")
    assert (row.status, row.segment, row.completed_ms, row.size_bytes) == ("COMPLETED", Segment(3, 4), 9, 7)
    catalog.write(lambda t: recovery_points.set_restored(t, "P", now_ms=11))
    assert find(catalog, "P").last_restore_ms == 11
    catalog.write(lambda t: recovery_points.mark_deleting(t, "P"))
    assert [row.point_id for row in catalog.read(lambda t: recovery_points.deleting(t, 5))] == ["P"]
    catalog.write(lambda t: recovery_points.delete(t, "P"))
    assert find(catalog, "P") is None


def test_the_latest_is_the_one_completed_last(catalog):
    """It has the same vault and resource, is complete, and is not being deleted."""
    add(catalog, "old", status="COMPLETED", completed_ms=5)
    add(catalog, "new", status="COMPLETED", completed_ms=7)
    add(catalog, "going", status="DELETING", completed_ms=8)
    add(catalog, "coming", status="CREATING")
    add(catalog, "elsewhere", status="COMPLETED", completed_ms=9, vault_id=2)
    add(catalog, "other", status="COMPLETED", completed_ms=9, resource_arn="arn:other")
    assert catalog.read(lambda t: recovery_points.latest(t, 1, "arn:r")).point_id == "new"
    assert catalog.read(lambda t: recovery_points.latest(t, 1, "arn:none")) is None


def test_points_are_counted_per_vault_as_they_are_listed(catalog):
    for number, status in enumerate(["COMPLETED", "COMPLETED", "DELETING", "CREATING"]):
        add(catalog, str(number), status=status)
    add(catalog, "elsewhere", status="COMPLETED", vault_id=2)
    assert catalog.read(lambda t: recovery_points.count_in_vault(t, 1)) == 4


def test_lists_are_newest_first_and_resume(catalog):
    for number, created_ms in enumerate([5, 7, 7, 9]):
        add(catalog, f"P{number}", created_ms=created_ms)
    found, before = [], None
    while rows := catalog.read(lambda t, before=before: recovery_points.page(t, conditions={}, before=before, limit=2)):
        found += [row.point_id for row in rows]
        before = (rows[-1].created_ms, rows[-1].point_id)
    assert found == ["P3", "P2", "P1", "P0"]
