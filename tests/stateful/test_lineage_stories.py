"""Difficult interleavings of jobs, failures and deletions, step by step.

The model compares every view after each test. When it closes, it deletes all points and checks that nothing is left.
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
    """Commit a point whose job puts `names` and removes `remove`."""
    job = model.run(resource, base)
    return model.commit(model.remove(model.put(job, *names, parts=parts), *remove))


def objects_left(model):
    """Return the number of object versions in the catalog."""
    return model.database.read(lambda t: t.row("SELECT count(*) FROM object"))[0]


def lineages_left(model):
    return model.database.read(lambda t: t.row("SELECT count(*) FROM lineage"))[0]


def test_jobs_on_the_latest_point_share_a_lineage(model):
    """The view of the newest is no deeper than that of the first, after any number of jobs."""
    for number in range(5):
        point(model, b"a", b"%d" % number)
    assert lineages_left(model) == 1


def test_a_failed_job_leaves_no_trace(model):
    first = point(model, b"a", b"b")
    failed = model.remove(model.put(model.run(), b"a", b"c"), b"b")
    model.end(failed)
    model.check()
    after = model.run()
    assert after.base is first
    model.check()
    assert lineages_left(model) == 1
    model.commit(after)


def test_the_base_of_a_failed_job_may_be_deleted_before_the_rows_of_the_job(model):
    """No later job sees the rows. After maintenance the first point is the newest, and nothing else is left."""
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


def test_the_base_of_a_failed_job_may_be_deleted_together_with_its_rows(model):
    """Batches of both deletions interleave."""
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
    """Two points are being deleted, and the older one is finished first: the next job sees neither."""
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


def test_a_job_may_start_while_the_newest_point_is_half_deleted(model):
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


def test_the_lineage_continues_after_its_newest_point_is_deleted(model):
    first = point(model, b"a", b"b")
    second = point(model, b"a", remove=[b"b"])
    model.delete(second)
    model.maintain()
    third = model.run()
    assert third.base is first
    model.commit(model.put(third, b"b", b"c"))
    assert lineages_left(model) == 1
    assert objects_left(model) == 4


def test_deleting_points_in_the_middle_affects_no_others(model):
    """Versions that other points see stay; all others are removed."""
    points = [point(model, b"always", b"%d" % number, b"changing") for number in range(5)]
    for number in (2, 1, 3):
        model.delete(points[number])
        model.maintain()
        model.check()
    # All of the names 0 to 4 are in the last point. Of the two changed names, the first and the last version stay.
    assert objects_left(model) == 5 + 4


def test_branches_outlive_their_bases(model):
    """A branch of a branch, while each point below is deleted, oldest first."""
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


def test_a_deleted_branch_releases_its_parent_in_small_transactions(model):
    """The base of the branch was deleted long ago. Its rows are deleted with the branch, a few per transaction."""
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


def test_a_job_may_start_on_the_parent_of_a_half_deleted_branch(model):
    """While the parent is released, another job starts on it, and the other branch stays complete."""
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
    """Neither while the job waits with a named base, nor while it runs, nor while it is being stopped."""
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


def test_removing_an_inherited_object_hides_it_only_from_the_branch(model):
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
    """The lineage has no rows left after the first deletion, but its empty point is still a base."""
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
    """Between its first request and its first write, only the job refers to its new lineage."""
    job = model.run(base="none")
    model.maintain()
    assert lineages_left(model) == 1
    model.commit(model.put(job, b"a"))


def test_the_chunk_list_of_an_object_replaced_in_its_own_job_is_removed(model):
    job = model.put(model.run(), b"a", b"b", parts=4)
    model.put(job, b"a", parts=2)
    model.remove(job, b"b")
    assert model.database.read(lambda t: t.row("SELECT count(*) FROM chunk_list")) == (2,)
    model.commit(job)


def test_a_job_of_another_resource_starts_a_lineage_of_its_own(model):
    """Even on the newest point: two resources must not write into the same generation."""
    first = point(model, b"a")
    other = model.put(model.run(RESOURCES[1], base=first), b"b")
    own = model.put(model.run(), b"c")
    model.check()
    model.commit(other)
    model.commit(own)
    assert lineages_left(model) == 2


def test_totals_count_each_name_once(model):
    """After repeated puts and removals, in one job and in several, with and without a branch."""
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
    """The next job starts on the point that was committed last."""
    point(model, b"a")
    model.clock.advance(-3_600_000)
    second = point(model, b"b")
    third = model.run()
    assert third.base is second
