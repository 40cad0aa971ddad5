"""Chunk rows: which bytes writers may link, and how rows are moved, condemned, healed and deleted."""

from __future__ import annotations

import pytest

from cryostore.catalog.processes import epoch
from cryostore.catalog.queries import damage
from cryostore.catalog.queries.damage import LocatedChunk
from cryostore.catalog.rows import chunks, packs
from cryostore.catalog.rows.chunks import ChunkRow

A, B, C = (bytes([filler]) * 32 for filler in b"abc")


def row(pack="p", offset=100, key=1):
    return ChunkRow(key, pack, offset, 50, 10)


def insert(catalog, digest, where=None, *, vault=1, at_epoch=0, pack_bytes=None):
    values = {"epoch": at_epoch, "now_ms": 0, "pack_bytes": pack_bytes}
    return catalog.write(lambda t: chunks.insert(t, vault, digest, where or row(), **values))


def find(catalog, digest, vault=1):
    return catalog.read(lambda t: chunks.find(t, vault, digest))


def is_known(catalog, digest, vault=1):
    return catalog.read(lambda t: chunks.is_known(t, vault, digest))


def condemn(catalog, digest, *, before_epoch=1, now_ms=5):
    return catalog.write(lambda t: chunks.condemn(t, 1, digest, epoch=before_epoch, now_ms=now_ms))


def mark_damaged(catalog, digest, pack_number=1, offset=100):
    return catalog.write(lambda t: damage.mark(t, LocatedChunk(1, digest, pack_number, offset), now_ms=7))


def test_a_chunk_belongs_to_one_vault(catalog):
    assert insert(catalog, A)
    assert find(catalog, A) == row()
    assert is_known(catalog, A)
    assert find(catalog, A, vault=2) is None
    assert not is_known(catalog, A, vault=2)


def test_a_sound_chunk_keeps_its_first_location(catalog):
    assert insert(catalog, A)
    assert insert(catalog, A, row(pack="q", offset=300))
    assert find(catalog, A) == row()


@pytest.mark.parametrize("why", ["condemned", "damaged"])
def test_a_condemned_or_damaged_chunk_gets_a_new_location(catalog, why):
    insert(catalog, A)
    assert condemn(catalog, A) if why == "condemned" else mark_damaged(catalog, A)
    assert not is_known(catalog, A)
    assert not catalog.write(lambda t: chunks.mark_used(t, 1, A))
    assert find(catalog, A) == row(), "it can still be read"
    assert insert(catalog, A, row(pack="q", offset=300, key=2))
    assert find(catalog, A) == row(pack="q", offset=300, key=2)
    assert is_known(catalog, A)


def test_bytes_in_a_retired_pack_must_be_stored_again(catalog):
    insert(catalog, A)
    catalog.write(lambda t: packs.close(t, "p"))
    assert condemn(catalog, A)
    assert catalog.write(lambda t: chunks.remove(t, 1, A, epoch=1, before_ms=5))
    assert catalog.write(lambda t: packs.retire(t, 1, now_ms=9))
    assert not insert(catalog, B)
    assert find(catalog, B) is None


def test_a_new_pack_must_be_from_the_current_epoch(catalog):
    """A pack without a row may have been abandoned in an earlier epoch."""
    catalog.write(epoch.next_epoch)
    assert not insert(catalog, A, at_epoch=0)
    assert insert(catalog, A, at_epoch=1)


def test_the_statements_do_what_insert_does(catalog):
    statements = chunks.insert_statements(1, A, row(), epoch=0, now_ms=0, pack_bytes=None)
    assert catalog.write(lambda t: t.run_all(statements)) == [1, 1]
    assert find(catalog, A) == row()
    again = chunks.insert_statements(1, A, row(offset=300), epoch=0, now_ms=0, pack_bytes=None)
    assert catalog.write(lambda t: t.run_all(again)) == [0, 0], "the caller then asks `insert`"
    assert find(catalog, A) == row()


def test_known_chunks_have_their_lengths_and_the_epoch(catalog):
    insert(catalog, A)
    insert(catalog, B, row(offset=200))
    condemn(catalog, B)
    many = [number.to_bytes(32, "big") for number in range(2 * chunks.DIGESTS_PER_QUERY)]
    assert catalog.read(lambda t: chunks.known_lengths(t, 1, [*many, A, B, C])) == {A: 10}
    assert catalog.read(lambda t: chunks.known_in_epoch(t, 1, A)) == (True, 0)
    catalog.write(epoch.next_epoch)
    assert catalog.read(lambda t: chunks.known_in_epoch(t, 1, B)) == (False, 1)


def test_a_chunk_used_in_this_epoch_is_not_condemned(catalog):
    insert(catalog, A)
    insert(catalog, B, row(offset=200))
    catalog.write(epoch.next_epoch)
    assert catalog.write(lambda t: chunks.mark_used(t, 1, A))
    assert not condemn(catalog, A, before_epoch=1)
    assert condemn(catalog, B, before_epoch=1)
    assert not condemn(catalog, B, before_epoch=1), "it is already condemned"


def test_a_condemnation_in_the_future_is_set_to_now(catalog):
    insert(catalog, A)
    assert condemn(catalog, A, now_ms=1000)
    assert condemn(catalog, A, now_ms=5)
    (swept,) = catalog.read(lambda t: chunks.page(t, after=(0, b""), limit=10))
    assert swept.condemned_ms == 5


def test_a_row_is_deleted_after_its_quarantine_and_never_before(catalog):
    insert(catalog, A)
    condemn(catalog, A, now_ms=5)

    def remove(before_ms, before_epoch=1):
        return catalog.write(lambda t: chunks.remove(t, 1, A, epoch=before_epoch, before_ms=before_ms))

    assert not remove(4)
    assert not remove(5, before_epoch=0)
    assert remove(5)
    assert find(catalog, A) is None
    assert not remove(5)


def test_pages_are_sorted_by_vault_and_digest(catalog):
    for vault, digest in [(2, A), (1, C), (1, A)]:
        insert(catalog, digest, vault=vault)
    keys = [(1, A), (1, C), (2, A)]

    def page(after, limit):
        return [
            (swept.vault_id, swept.digest) for swept in catalog.read(lambda t: chunks.page(t, after=after, limit=limit))
        ]

    assert page((0, b""), 10) == keys
    assert page((1, A), 1) == keys[1:2]
    assert page((2, A), 10) == []
    assert catalog.read(lambda t: list(chunks.vault_ids(t))) == [1, 2]


def test_steps_are_counted_in_the_order_of_pages(catalog, monkeypatch):
    monkeypatch.setattr(chunks, "COUNT_STEP", 2)
    for digest in (A, B, C):
        insert(catalog, digest)
    assert catalog.read(lambda t: chunks.count_step(t, (0, b""))) == (1, B)
    assert catalog.read(lambda t: chunks.count_step(t, (1, B))) is None


def test_the_rows_of_a_deleted_vault_are_deleted_in_steps(catalog):
    for digest in (A, B, C):
        insert(catalog, digest)
    insert(catalog, A, vault=2)
    catalog.write(lambda t: chunks.delete_of_vault(t, 1, 2))
    assert sum(find(catalog, digest) is not None for digest in (A, B, C)) == 1
    catalog.write(lambda t: chunks.delete_of_vault(t, 1, 2))
    assert catalog.read(lambda t: list(chunks.vault_ids(t))) == [2]


def test_the_chunks_of_a_pack_are_sorted_by_offset(catalog):
    insert(catalog, A, row(offset=300))
    insert(catalog, B, row(offset=100))
    insert(catalog, C, row(offset=200))
    insert(catalog, A, row(pack="q"), vault=2)
    mark_damaged(catalog, C, offset=200)

    def offsets(query, start):
        return [found.pack_offset for found in catalog.read(lambda t: query(t, 1, from_offset=start, limit=10))]

    assert offsets(chunks.all_in_pack, 0) == [100, 200, 300]
    assert offsets(chunks.sound_in_pack, 0) == [100, 300]
    assert offsets(chunks.sound_in_pack, 101) == [300]
    (first, *_) = catalog.read(lambda t: chunks.all_in_pack(t, 1, from_offset=200, limit=1))
    assert (first.digest, first.damaged_ms, first.end) == (C, 7, 250)
    assert catalog.read(lambda t: chunks.last_end(t, 1)) == 350
    assert catalog.read(lambda t: chunks.last_end_in(t, "q")) == 150
    assert catalog.read(lambda t: (chunks.last_end(t, 9), chunks.last_end_in(t, "none"))) == (0, 0)


def test_only_damaged_and_missing_rows_are_healed(catalog):
    insert(catalog, A)

    def heal(digest, offset):
        return catalog.write(lambda t: chunks.heal(t, 1, digest, row(offset=offset), pack_number=1))

    assert not heal(A, 400)
    assert find(catalog, A).pack_offset == 100
    mark_damaged(catalog, A)
    assert heal(A, 400)
    assert find(catalog, A).pack_offset == 400
    assert is_known(catalog, A)
    assert heal(B, 500)
    assert is_known(catalog, B)


def test_a_row_moves_only_from_the_location_that_was_read(catalog):
    insert(catalog, A)
    insert(catalog, B, row(pack="q"))
    (chunk,) = catalog.read(lambda t: chunks.sound_in_pack(t, 1, from_offset=0, limit=10))

    def move():
        return catalog.write(lambda t: chunks.move(t, chunk, from_pack=1, to_pack=2, to_offset=900))

    assert move()
    assert find(catalog, A) == row(pack="q", offset=900)
    assert not move(), "it is no longer there"
