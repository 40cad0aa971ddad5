"""Record rows: which records are due, how one is finished, and which depend on others."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import lineages, records, recovery_points
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.records import COMMIT, STORE, VAULT, RecordKey, RecordRow
from support.catalogs.catalog_rows import point_row

VAULT_1 = RecordKey(VAULT, 1)


@pytest.fixture
def catalog(catalog):
    """A catalog without the record of the store, which a new one begins with."""
    catalog.write(lambda t: t.run("DELETE FROM record"))
    return catalog


def touch(catalog, key, previous=None):
    return catalog.write(lambda t: records.touch(t, key, previous=previous))


def finish(catalog, key, change, *, parts=1, entries=1, previous=None):
    return catalog.write(lambda t: records.finish(t, key, change, parts=parts, entries=entries, previous=previous))


def find(catalog, key):
    return catalog.read(lambda t: records.find(t, key))


def due(catalog, **after):
    return [row.key for row in catalog.read(lambda t: records.due(t, 10, **after))]


def commit(catalog, generation, *, lineage=1, previous=None, recorded=True):
    """Add a commit with its record, which is finished if `recorded`."""
    key = RecordKey(COMMIT, lineage, generation)
    change = touch(catalog, key, previous)
    if recorded:
        finish(catalog, key, change, previous=previous)
    return key


def test_each_change_gets_the_next_number(catalog):
    assert [touch(catalog, VAULT_1) for _ in range(3)] == [1, 2, 3]
    assert touch(catalog, RecordKey(VAULT, 2)) == 1
    assert find(catalog, VAULT_1) == RecordRow(VAULT, 1, 0, 3, 0, 0, 0, 0, None)
    assert find(catalog, RecordKey(VAULT, 9)) is None


def test_a_noun_is_due_until_its_last_change_is_recorded(catalog):
    touch(catalog, VAULT_1)
    touch(catalog, VAULT_1)
    touch(catalog, RecordKey(STORE))
    assert due(catalog) == [RecordKey(STORE), VAULT_1]
    assert due(catalog, after=RecordKey(STORE)) == [VAULT_1]
    assert finish(catalog, VAULT_1, 1)
    assert due(catalog) == [RecordKey(STORE), VAULT_1]
    assert finish(catalog, VAULT_1, 2)
    assert due(catalog) == [RecordKey(STORE)]


def test_the_first_record_has_no_previous_one(catalog):
    touch(catalog, VAULT_1)
    assert finish(catalog, VAULT_1, 1, parts=2, entries=5) == RecordRow(VAULT, 1, 0, 1, 0, 0, 0, 0, None)
    assert find(catalog, VAULT_1) == RecordRow(VAULT, 1, 0, 1, 1, 2, 5, 0, None)


def test_a_finished_record_names_the_one_it_replaces(catalog):
    touch(catalog, VAULT_1)
    finish(catalog, VAULT_1, 1, parts=2, entries=5)
    touch(catalog, VAULT_1)
    before = finish(catalog, VAULT_1, 2, parts=3, entries=7)
    assert (before.recorded, before.parts, before.entries) == (1, 2, 5)
    after = find(catalog, VAULT_1)
    assert (after.recorded, after.parts, after.entries) == (2, 3, 7)


def test_a_late_record_changes_nothing(catalog):
    touch(catalog, VAULT_1)
    touch(catalog, VAULT_1)
    finish(catalog, VAULT_1, 2)
    assert finish(catalog, VAULT_1, 1, parts=9) is None
    catalog.write(lambda t: records.end(t, VAULT_1))
    assert finish(catalog, VAULT_1, 3) is None, "the noun is deleted"
    assert find(catalog, VAULT_1).recorded == 2


def test_a_deleted_noun_is_due_and_then_removed(catalog):
    touch(catalog, VAULT_1)
    finish(catalog, VAULT_1, 1)
    catalog.write(lambda t: records.end(t, VAULT_1))
    row = find(catalog, VAULT_1)
    assert (row.gone, due(catalog)) == (1, [VAULT_1])
    assert catalog.write(lambda t: records.touch_known(t, VAULT_1)) is None
    assert not catalog.write(lambda t: records.delete(t, row._replace(parts=9)))
    assert catalog.write(lambda t: records.delete(t, row))
    assert find(catalog, VAULT_1) is None


def test_only_a_known_noun_is_touched_as_known(catalog):
    assert catalog.write(lambda t: records.touch_known(t, VAULT_1)) is None
    touch(catalog, VAULT_1)
    assert catalog.write(lambda t: records.touch_known(t, VAULT_1)).changes == 2


def test_a_commit_builds_on_the_tip_of_its_lineage(catalog):
    lineage = catalog.write(lambda t: lineages.insert(t, 1, None))
    catalog.write(lambda t: lineages.set_tip(t, Segment(lineage, 4)))
    row = catalog.write(lambda t: records.begin_commit(t, Segment(lineage, 6)))
    assert (row.key, row.changes, row.previous) == (RecordKey(COMMIT, lineage, 6), 1, 4)
    catalog.write(lambda t: lineages.set_tip(t, Segment(lineage, 6)))
    again = catalog.write(lambda t: records.begin_commit(t, Segment(lineage, 6)))
    assert (again.changes, again.previous) == (2, 4)


def test_unseen_commits_are_touched(catalog):
    lineage = catalog.write(lambda t: lineages.insert(t, 1, None))
    keys = [commit(catalog, generation, lineage=lineage) for generation in (1, 2, 3, 4)]
    waiting = commit(catalog, 5, lineage=lineage, recorded=False)
    point = point_row("P", status="COMPLETED", lineage_id=lineage, generation=2)
    going = point_row("Q", status="DELETING", lineage_id=lineage, generation=3)
    catalog.write(lambda t: (recovery_points.insert(t, point), recovery_points.insert(t, going)))
    catalog.write(lambda t: lineages.insert(t, 1, Segment(lineage, 4)))
    assert catalog.write(records.touch_unseen) == 2
    assert due(catalog) == [keys[0], keys[2], waiting]
    assert catalog.write(records.touch_unseen) == 0, "they are already due"


def test_records_between_two_seen_generations(catalog):
    for generation, previous in ((1, None), (2, 1), (4, 2), (6, 4), (9, 6)):
        commit(catalog, generation, previous=previous)
    commit(catalog, 3, lineage=2)

    def between(below, above):
        return [key.generation for key in catalog.read(lambda t: records.between(t, 1, below, above))]

    assert between(1, 6) == [2, 4, 6], "the record of 6 builds on 4"
    assert between(6, 9) == []
    commit(catalog, 6, previous=1)
    assert between(1, 6) == [2, 4]
    assert between(4, 8) == [6]


def test_commits_above_a_generation_are_newest_first(catalog):
    for generation in (1, 3, 5):
        commit(catalog, generation)
    above = catalog.read(lambda t: records.above(t, Segment(1, 1), 10))
    assert [row.generation for row in above] == [5, 3]
    assert len(catalog.read(lambda t: records.above(t, Segment(1, 0), 2))) == 2


def test_commits_that_build_on_a_changed_one_are_touched(catalog):
    first = commit(catalog, 1)
    second, third = commit(catalog, 2, previous=1), commit(catalog, 3, previous=1)
    commit(catalog, 4, previous=3)
    commit(catalog, 2, lineage=2, previous=1)
    touched = catalog.write(lambda t: records.touch_following(t, first))
    assert sorted(touched) == [second, third]
    assert due(catalog) == [second, third]


def test_rows_are_in_key_order(catalog):
    keys = [commit(catalog, 2), commit(catalog, 10), RecordKey(STORE), VAULT_1]
    for key in keys[2:]:
        touch(catalog, key)
    page = catalog.read(lambda t: records.page(t, records.FIRST, 10))
    assert [row.key for row in page] == keys
    assert [row.key for row in catalog.read(lambda t: records.page(t, keys[0], 2))] == keys[1:3]
    assert sorted(catalog.read(lambda t: records.between_keys(t, keys[1], keys[2]))) == sorted(keys[1:3])


def test_a_restored_row_is_unchanged(catalog):
    row = RecordRow(COMMIT, 1, 7, 3, 2, 4, 50, 0, 5)
    catalog.write(lambda t: records.insert(t, row))
    assert find(catalog, row.key) == row
    assert records.of_commit(Segment(1, 7)) == row.key
