"""Deletions that were begun are finished."""

from __future__ import annotations

from cryostore.catalog.rows import recovery_points as rows
from cryostore.maintenance.duties import recovery_points


def test_only_points_being_deleted_go(model):
    """Those a deletion was begun for, whose request did not come to the end."""
    points = [model.commit(model.put(model.run(), b"a", b"%d" % number)) for number in range(3)]
    model.delete(points[1])
    recovery_points.forget_deleted(model.context)
    model.see_forgotten()
    assert model.live() == [points[0], points[2]]
    assert points[1].point_id not in model.points
    model.check()


def test_a_round_takes_so_much_and_the_next_goes_on(model, monkeypatch):
    monkeypatch.setattr(recovery_points, "BATCHES_PER_POINT", 1)
    monkeypatch.setattr(recovery_points, "POINTS_PER_ROUND", 1)
    for number in range(2):
        model.delete(model.commit(model.put(model.run(base="none"), *(b"%d%d" % (number, name) for name in range(5)))))
    rounds = 0
    while model.deleting():
        recovery_points.forget_deleted(model.context)
        rounds += 1
        assert rounds < 20
    assert rounds > 2
    model.see_forgotten()
    assert model.points == {}


def test_points_being_created_or_complete_stay(model, snapshot):
    model.commit(model.put(model.run(), b"a"))
    model.start()
    before = snapshot()
    recovery_points.forget_deleted(model.context)
    assert snapshot() == before
    assert model.database.read(lambda t: rows.deleting(t, 10)) == []
