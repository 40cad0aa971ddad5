"""Pruning of deleted points from many threads at once, on a real catalog file."""

from __future__ import annotations

from cryostore.service.lineages import delete_point
from support.catalogs.lineage_races import backed_up, outcomes

COVERS = ("service/lineages.py",)


def test_concurrent_deletions_of_points(model):
    points = [backed_up(model, b"a", b"%d" % number) for number in range(5)]
    for point in points[:4]:
        model.delete(point)
    rows = model.deleting()
    found = outcomes(8, lambda number: delete_point(model.context, rows[number % 4], batches_max=1000))
    assert found == [True] * 8
    model.see_forgotten()
    assert model.live() == points[4:]
    model.check()
    assert model.database.read(lambda t: t.row("SELECT count(*) FROM object")) == (6,)
