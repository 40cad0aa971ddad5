"""What ended jobs wrote goes with time, and the lineages nobody needs with it."""

from __future__ import annotations

import pytest

from cryostore.maintenance.duties import lineages


def rows(model):
    return model.database.read(lambda t: t.row("SELECT count(*) FROM object"))[0]


@pytest.mark.parametrize("how", ["stop", "give up"])
def test_rows_of_ended_jobs_are_taken_back(model, how):
    point = model.commit(model.put(model.run(), b"a", b"b"))
    job = model.remove(model.put(model.run(), b"a", b"c", b"d"), b"b")
    model.end(job, how)
    lineages.clean_dirty(model.context)
    model.see_aborted()
    assert job.ended
    assert model.dirty() == []
    assert rows(model) == len(point.view)


def test_rows_of_running_jobs_stay(model, snapshot):
    model.put(model.run(), b"a", b"b")
    before = snapshot()
    lineages.clean_dirty(model.context)
    lineages.settle_retired(model.context)
    assert snapshot() == before


def test_a_round_takes_so_much_and_the_next_goes_on(model, monkeypatch):
    monkeypatch.setattr(lineages, "BATCHES_PER_LINEAGE", 2)
    model.end(model.put(model.run(), *(b"%02d" % number for number in range(10))))
    left = []
    while model.dirty():
        lineages.clean_dirty(model.context)
        left.append(rows(model))
    assert left == [6, 2, 0]


def test_a_retired_lineage_goes_with_what_only_it_saw(model):
    """Its parent point is deleted already."""
    first = model.commit(model.put(model.run(), b"a", b"b"))
    model.commit(model.put(model.run(), b"a", b"b", b"c"))
    branch = model.commit(model.put(model.run(base=first), b"x"))
    model.delete(first)
    model.forget(*model.deleting(), 20)
    assert rows(model) == 6
    model.delete(branch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryostore.service.lineages.pruning.remove_unneeded_lineages", lambda *_, **__: None)
        model.forget(*model.deleting(), 20)
    assert model.retired()
    lineages.settle_retired(model.context)
    assert not model.retired()
    assert rows(model) == 3
