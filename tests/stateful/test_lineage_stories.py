"""Difficult interleavings of jobs, failures and deletions, each step by step.

The model compares every view after each story, and closing it shows that nothing is left when all is deleted.
"""

from __future__ import annotations

import pytest

from support.catalogs.catalog_model import RESOURCES, CatalogModel


@pytest.fixture(params=[1, 3])
def model(request):
    with CatalogModel(batch_rows=request.param) as model:
        yield model
        model.check()


def point(model, *names, base="latest", remove=(), resource=RESOURCES[0], parts=0):
    """A committed point whose job put and removed these names."""
    job = model.run(resource, base)
    return model.commit(model.remove(model.put(job, *names, parts=parts), *remove))


def objects_left(model):
    """How many object versions the catalog keeps, by generation of the newest lineage's kind."""
    return model.database.read(lambda t: t.row("SELECT count(*) FROM object"))[0]


def lineages_left(model):
    return model.database.read(lambda t: t.row("SELECT count(*) FROM lineage"))[0]


def test_jobs_on_the_latest_point_share_a_lineage(model):
    """However many come one after the other: the view of the newest is not deeper than that of the first."""
    for number in range(5):
        point(model, b"a", b"%d" % number)
    assert lineages_left(model) == 1


def test_a_job_that_failed_leaves_no_trace(model):
    first = point(model, b"a", b"b")
    failed = model.remove(model.put(model.run(), b"a", b"c"), b"b")
    model.end(failed)
    model.check()
    after = model.run()
    assert after.base is first
    model.check()
    assert lineages_left(model) == 1
    model.commit(after)


def test_the_base_of_a_failed_job_may_go_before_its_rows_do(model):
    """The rows go first to be seen by nobody; afterwards the point below is the tip, and all of the rest is gone."""
    first = point(model, b"a", b"b")
    second = point(model, b"a", b"c")
    model.end(model.put(model.run(), b"a", b"d"))
    model.delete(second)
    (row,) = model.deleting()
    while not model.forget(row, 1):
        model.check()
    model.maintain()
    assert objects_left(model) == 2
    third = model.run()
    assert third.base is first
    assert lineages_left(model) == 1
    model.commit(model.put(third, b"e"))


def test_the_base_of_a_failed_job_may_go_while_its_rows_do(model):
    """Batches of both interleave."""
    point(model, b"a", b"b", b"c")
    second = point(model, b"a", b"b", b"d")
    failed = model.end(model.remove(model.put(model.run(), b"a", b"b", b"e"), b"c", b"d"), "give up")
    assert failed is None
    model.delete(second)
    (deleted,), (dirty,) = model.deleting(), model.dirty()
    for _ in range(20):
        model.clean(dirty, 1)
        model.check()
        model.forget(deleted, 1)
        model.check()
    assert not model.dirty()
    assert not model.deleting()
    assert objects_left(model) == 3


def test_half_deleted_points_are_not_seen_by_the_next_job(model):
    """Of two points being deleted the lower one is finished first: the next job sees nothing of the upper one."""
    point(model, b"a")
    second = point(model, b"b")
    third = point(model, b"c", b"d")
    model.delete(second)
    model.delete(third)
    rows = {row.point_id: row for row in model.deleting()}
    while not model.forget(rows[second.point_id], 1):
        model.check()
    job = model.put(model.run(), b"e")
    assert sorted(job.view) == [b"a", b"e"]
    model.check()
    model.maintain()
    model.check()
    model.commit(job)


def test_a_job_may_begin_while_the_tip_is_half_deleted(model):
    point(model, b"a", b"b")
    second = point(model, b"a", b"c", b"d", remove=[b"b"])
    model.delete(second)
    (row,) = model.deleting()
    for batches in range(3):
        model.forget(row, 1)
        job = model.put(model.run(), b"n%d" % batches)
        model.check()
        model.end(job)
    model.maintain()
    model.commit(model.put(model.run(), b"z"))


def test_the_tip_may_go_and_the_lineage_goes_on(model):
    first = point(model, b"a", b"b")
    second = point(model, b"a", remove=[b"b"])
    model.delete(second)
    model.maintain()
    third = model.run()
    assert third.base is first
    model.commit(model.put(third, b"b", b"c"))
    assert lineages_left(model) == 1
    assert objects_left(model) == 4


def test_points_in_the_middle_go_alone(model):
    """Of versions that others still see nothing is lost, of others nothing stays."""
    points = [point(model, b"always", b"%d" % number, b"changing") for number in range(5)]
    for number in (2, 1, 3):
        model.delete(points[number])
        model.maintain()
        model.check()
    # Of the names 0 to 4 all are in the last point; of the two that changed, the versions of the first and the last.
    assert objects_left(model) == 5 + 4


def test_branches_outlive_what_they_were_begun_on(model):
    """A branch of a branch, and each point below it deleted, oldest first."""
    first = point(model, b"a", b"b", b"c")
    second = point(model, b"a", b"d")
    branch = point(model, b"b", base=first, remove=[b"c"])
    twig = point(model, b"c", b"a", base=branch, resource=RESOURCES[1], remove=[b"b"])
    for old in (first, branch, second):
        model.delete(old)
        model.maintain()
        model.check()
    model.commit(model.put(model.run(RESOURCES[1]), b"x"))
    model.delete(twig)
    model.maintain()


def test_a_branch_that_goes_releases_its_parent_bit_by_bit(model):
    """The point it was begun on is gone since long: its rows go with the branch, a few a transaction."""
    first = point(model, b"a", b"b", b"c", parts=3)
    second = point(model, b"a", b"b", b"c", b"d")
    branch = point(model, b"x", base=first)
    model.delete(first)
    model.maintain()
    assert objects_left(model) == 8
    model.delete(branch)
    (row,) = model.deleting()
    while not model.forget(row, 1):
        model.check()
    steps = 0
    while not model.settle(1):
        steps += 1
        model.check()
    assert steps > 1
    assert objects_left(model) == len(second.view)
    assert lineages_left(model) == 1


def test_a_branch_that_goes_half_way_may_be_begun_again(model):
    """While the parent is being released, another job begins on it and the other branch stays whole."""
    first = point(model, b"a", b"b", b"c")
    point(model, b"a", b"d")
    branch = point(model, b"x", base=first)
    other = point(model, b"y", base=first, resource=RESOURCES[1])
    model.delete(first)
    model.maintain()
    model.delete(branch)
    model.forget(*model.deleting(), 20)
    model.settle(1)
    model.check()
    model.delete(other)
    model.forget(*model.deleting(), 20)
    for _ in range(4):
        model.settle(1)
        model.check()
        model.end(model.put(model.run(), b"z"))
    model.maintain()


def test_a_stopped_job_blocks_the_next_until_its_rows_are_gone(model):
    point(model, b"a", b"b")
    stopped = model.put(model.run(), b"a", b"c", b"d")
    model.end(stopped, "stop")
    waiting = model.touch(model.start())
    assert (stopped.state, waiting.state) == ("ABORTING", "PENDING")
    (dirty,) = model.dirty()
    while not model.clean(dirty, 1):
        assert model.touch(waiting).state == "PENDING"
    assert model.touch(waiting).state == "RUNNING"
    assert stopped.state == "ABORTED"


def test_the_base_of_a_job_cannot_be_deleted(model):
    """Neither before its first touch, if it was named, nor while it runs, nor while it is being stopped."""
    first = point(model, b"a")
    waiting = model.start(base=first)
    model.delete(first)
    assert not first.deleting
    model.touch(waiting)
    model.delete(first)
    assert not first.deleting
    model.end(model.put(waiting, b"b"), "stop")
    model.delete(first)
    assert not first.deleting
    model.maintain()
    model.delete(first)
    assert first.deleting


def test_removing_what_a_branch_inherited_hides_it_from_the_branch_alone(model):
    first = point(model, b"a", b"b", b"c")
    branch = point(model, b"d", base=first, remove=[b"a"])
    back = point(model, b"a", base=branch)
    gone = point(model, base=back, remove=[b"a", b"b", b"c", b"d"], resource=RESOURCES[0])
    assert (sorted(branch.view), sorted(back.view), sorted(gone.view)) == (
        [b"b", b"c", b"d"],
        [b"a", b"b", b"c", b"d"],
        [],
    )


def test_a_lineage_is_kept_for_a_point_without_objects(model):
    """The only rows of the lineage were those of a point that is gone; the empty one is still a base."""
    first = point(model, b"a")
    empty = point(model, remove=[b"a"])
    model.delete(first)
    model.maintain()
    assert objects_left(model) == 0
    model.check()
    after = model.run()
    assert after.base is empty
    model.commit(model.put(after, b"b"))


def test_a_lineage_is_kept_for_a_branch_of_a_point_without_objects(model):
    first = point(model, b"a")
    empty = point(model, remove=[b"a"])
    branch = point(model, b"b", base=empty, resource=RESOURCES[1])
    for old in (first, empty):
        model.delete(old)
        model.maintain()
    model.check()
    assert lineages_left(model) == 2
    model.delete(branch)
    model.maintain()
    assert lineages_left(model) == 0


def test_a_lineage_is_kept_for_a_running_job_that_wrote_nothing(model):
    """Between the first touch and the first write, nothing but the job speaks for its new lineage."""
    job = model.run(base="none")
    model.maintain()
    assert lineages_left(model) == 1
    model.commit(model.put(job, b"a"))


def test_an_object_replaced_in_its_own_job_takes_its_chunk_list_along(model):
    job = model.put(model.run(), b"a", b"b", parts=4)
    model.put(job, b"a", parts=2)
    model.remove(job, b"b")
    assert model.database.read(lambda t: t.row("SELECT count(*) FROM chunk_list")) == (2,)
    model.commit(job)


def test_a_job_of_another_resource_begins_a_lineage_of_its_own(model):
    """Even on the tip: else the jobs of two resources would write into one generation after the other's view."""
    first = point(model, b"a")
    other = model.put(model.run(RESOURCES[1], base=first), b"b")
    own = model.put(model.run(), b"c")
    model.check()
    model.commit(other)
    model.commit(own)
    assert lineages_left(model) == 2


def test_totals_count_each_name_once(model):
    """Put, put again, removed, put back, in one job and over several, on a branch and off it."""
    first = point(model, b"a", b"b")
    for base in ("latest", first):
        job = model.run(base=base)
        model.put(job, b"a", length=5)
        model.put(job, b"a", length=7)
        model.remove(job, b"a", b"b")
        model.put(job, b"b", length=11)
        model.put(job, b"n", length=13)
        model.remove(job, b"n")
        committed = model.commit(job)
        assert sum(thing.length for thing in committed.view.values()) == 11
        model.commit(model.remove(model.put(model.run(), b"a", length=2), b"b"))


def test_a_clock_set_back_does_not_make_an_old_point_the_newest(model):
    """The next job begins on what was committed last."""
    point(model, b"a")
    model.clock.advance(-3_600_000)
    second = point(model, b"b")
    third = model.run()
    assert third.base is second
