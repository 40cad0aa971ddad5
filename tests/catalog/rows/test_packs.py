"""Pack rows: open and closed packs, removal of empty ones, and the time of the last verification."""

from __future__ import annotations

import pytest

from cryostore.catalog.processes import epoch
from cryostore.catalog.rows import chunks, packs
from cryostore.catalog.rows.chunks import ChunkRow
from cryostore.catalog.rows.packs import PackRow

DIGEST = b"d" * 32


def number_for(catalog, name, *, at_epoch=0, size_bytes=None):
    return catalog.write(lambda t: packs.number_for(t, name, epoch=at_epoch, now_ms=3, size_bytes=size_bytes))


def closed(catalog, *names, size_bytes=10):
    return [number_for(catalog, name, size_bytes=size_bytes) for name in names]


def fill(catalog, name):
    where = ChunkRow(1, name, 0, 50, 10)
    assert catalog.write(lambda t: chunks.insert(t, 1, DIGEST, where, epoch=0, now_ms=0))


def retire(catalog, number, now_ms=5):
    return catalog.write(lambda t: packs.retire(t, number, now_ms=now_ms))


def drop(catalog, number, *, at_epoch=1, before_ms=5):
    return catalog.write(lambda t: packs.drop(t, number, epoch=at_epoch, before_ms=before_ms))


def find(catalog, name):
    return catalog.read(lambda t: packs.find(t, name))


def names(catalog, query, after=0, limit=10):
    return [row.name for row in catalog.read(lambda t: query(t, after=after, limit=limit))]


def test_a_pack_keeps_its_number(catalog):
    number = number_for(catalog, "p")
    assert number_for(catalog, "p") == number
    assert number_for(catalog, "q") == number + 1
    assert find(catalog, "p") == PackRow(number, "p", None, None, None)
    assert find(catalog, "none") is None


def test_a_growing_pack_is_open_until_it_is_closed(catalog):
    number_for(catalog, "grows")
    number_for(catalog, "also")
    number_for(catalog, "whole", size_bytes=7)
    assert catalog.read(packs.open_packs) == ["grows", "also"]
    assert not catalog.read(lambda t: packs.is_closed(t, 1))
    catalog.write(lambda t: packs.close_all(t, ["grows", "also"]))
    assert catalog.read(packs.open_packs) == []
    assert catalog.read(lambda t: [packs.is_closed(t, number) for number in (1, 3, 9)]) == [True, True, False]


def test_a_new_pack_must_be_from_the_current_epoch(catalog):
    number_for(catalog, "old")
    catalog.write(epoch.next_epoch)
    assert number_for(catalog, "new") is None
    assert number_for(catalog, "old") == 1, "its row shows that it was not abandoned"
    assert number_for(catalog, "new", at_epoch=1) == 2


@pytest.mark.parametrize("kept", [True, False])
def test_the_statement_only_adds_a_new_pack(catalog, kept):
    if kept:
        number_for(catalog, "p")
    statement = packs.insert_statement("p", epoch=0, now_ms=0, size_bytes=None)
    assert catalog.write(lambda t: t.run_all([statement])) == [0 if kept else 1]
    assert catalog.read(packs.open_packs) == ["p"]


def test_sizes_are_stored_and_summed(catalog):
    one, other = closed(catalog, "p", "q", size_bytes=100)
    growing = number_for(catalog, "grows")
    assert catalog.read(packs.noted_bytes) == 200
    catalog.write(lambda t: packs.set_sizes(t, {one: 150, growing: 7}))
    assert catalog.read(packs.noted_bytes) == 257
    retire(catalog, other)
    assert catalog.read(packs.noted_bytes) == 257, "its file still exists"
    drop(catalog, other)
    assert catalog.read(packs.noted_bytes) == 157


def test_only_a_closed_empty_pack_is_retired(catalog):
    growing = number_for(catalog, "grows")
    full, empty, last = closed(catalog, "full", "empty", "last")
    fill(catalog, "full")
    assert catalog.read(lambda t: packs.empty(t, after=0, limit=10)) == [empty, last]
    assert catalog.read(lambda t: packs.empty(t, after=empty, limit=10)) == [last]
    assert [retire(catalog, number) for number in (growing, full, empty)] == [False, False, True]
    assert not retire(catalog, empty), "it is already retired"
    assert names(catalog, packs.not_retired) == ["grows", "full", "last"]
    assert names(catalog, packs.not_retired, after=full, limit=1) == ["last"]
    assert names(catalog, packs.retired) == ["empty"]
    assert not catalog.read(lambda t: packs.is_closed(t, empty))
    assert number_for(catalog, "empty") is None, "it accepts no more chunks"


def test_a_pack_is_removed_after_the_quarantine_and_its_row_in_a_later_epoch(catalog):
    (number,) = closed(catalog, "p")
    assert not drop(catalog, number), "it is not retired"
    retire(catalog, number, now_ms=5)
    assert not drop(catalog, number, before_ms=4)
    assert drop(catalog, number, at_epoch=3)
    assert not drop(catalog, number, at_epoch=4), "it is already dropped"
    assert find(catalog, "p").dropped_epoch == 3
    assert names(catalog, packs.retired) == ["p"]
    for before, left in ((3, ["p"]), (4, [])):
        catalog.write(lambda t, before=before: packs.forget(t, number, epoch=before))
        assert names(catalog, packs.retired) == left


def test_the_least_recently_verified_pack_comes_first(catalog):
    numbers = closed(catalog, "a", "b", "c", "d")
    growing = number_for(catalog, "grows")
    for number, now_ms in zip([*numbers, growing], (30, 10, 10, 99, 99), strict=True):
        catalog.write(lambda t, number=number, now_ms=now_ms: packs.set_verified(t, number, now_ms=now_ms))

    def least(after=(-1, 0), before=50):
        page = catalog.read(lambda t: packs.least_verified(t, after=after, verified_before_ms=before, limit=10))
        return [(pack.name, pack.verified_ms) for pack in page]

    assert least() == [("grows", 0), ("b", 10), ("c", 10), ("a", 30)], "an open pack is never verified"
    assert least(after=(10, 2)) == [("c", 10), ("a", 30)]
    assert least(before=30) == [("grows", 0), ("b", 10), ("c", 10)]
    assert catalog.read(lambda t: packs.count(t, verified_before_ms=30)) == 3
    assert catalog.read(lambda t: [packs.verified_ms(t, number) for number in (1, 99)]) == [30, None]
    retire(catalog, numbers[1])
    assert catalog.read(lambda t: packs.count(t, verified_before_ms=30)) == 2


def test_a_restored_pack_is_closed_and_added_once(catalog):
    def put_back(name, size_bytes):
        return catalog.write(lambda t: packs.put_back(t, name, now_ms=0, size_bytes=size_bytes))

    number = put_back("p", 10)
    assert put_back("p", 20) == number
    assert find(catalog, "p").size_bytes == 10
    assert catalog.read(lambda t: packs.is_closed(t, number))
