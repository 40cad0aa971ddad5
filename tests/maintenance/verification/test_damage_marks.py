"""Damage marks are written in batches, removed from sound chunks, and kept in memory if the catalog is full."""

from __future__ import annotations

import dataclasses

from cryostore.catalog.queries import damage
from cryostore.catalog.queries.damage import LocatedChunk
from cryostore.maintenance.verification import damage_marks
from cryostore.maintenance.verification.damage_marks import DamageMarks
from support.faults.faulty_database import FaultyDatabase
from support.stores.shop import DATA, Shop


def located(shop):
    """Return all chunks of the store, at the places in their rows."""
    rows = shop.store.database.read(
        lambda t: t.rows("SELECT vault_id, digest, pack_number, pack_offset FROM chunk ORDER BY digest")
    )
    return [LocatedChunk(*row) for row in rows]


def marked(shop):
    return shop.store.database.read(damage.count)


def test_marks_are_set_once_and_removed_from_sound_chunks():
    shop = Shop()
    for _ in range(2):
        marks = DamageMarks(shop.context)
        for chunk in located(shop):
            marks.add(chunk)
        marks.flush()
    assert (marks.marked, marks.problem, marked(shop)) == (0, "", len(DATA))
    for chunk in located(shop)[:2]:
        marks.add_sound(chunk)
    marks.flush()
    assert marked(shop) == len(DATA) - 2


def test_a_chunk_that_was_moved_meanwhile_is_not_marked():
    shop = Shop()
    marks = DamageMarks(shop.context)
    marks.add(located(shop)[0]._replace(pack_offset=10**9))
    marks.flush()
    assert (marks.marked, marked(shop)) == (0, 0)


def test_marks_are_written_once_a_batch_is_full(monkeypatch):
    monkeypatch.setattr(damage_marks, "PLACES_PER_BATCH", 2)
    shop = Shop()
    marks = DamageMarks(shop.context)
    seen = []
    for chunk in located(shop)[:3]:
        marks.add(chunk)
        marks.flush_if_due()
        seen.append(marked(shop))
    assert seen == [0, 2, 2]


def test_chunks_that_cannot_be_marked_are_kept():
    shop = Shop()
    faulty = FaultyDatabase(shop.context.database)
    marks = DamageMarks(dataclasses.replace(shop.context, database=faulty))
    chunk = located(shop)[0]
    marks.add(chunk)
    faulty.fail(1, kind="write")
    marks.flush()
    assert marks.problem
    assert marks.left == {(chunk.vault_id, chunk.digest)}
    assert marked(shop) == 0
