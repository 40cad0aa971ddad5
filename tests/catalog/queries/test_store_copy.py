"""Queries for copying a store: notes on blobs, and the packs and records to copy."""

from __future__ import annotations

from cryostore.catalog.queries import store_copy
from cryostore.catalog.queries.store_copy import BEGUN, NamedPack, Note
from cryostore.catalog.rows import chunks, packs, records
from cryostore.catalog.rows.chunks import ChunkRow
from cryostore.catalog.rows.records import VAULT, RecordKey

A, B = b"a" * 32, b"b" * 32


def insert_chunk(catalog, digest, pack, offset):
    row = ChunkRow(4, pack, offset, 50, 10)
    catalog.write(lambda t: chunks.insert(t, 1, digest, row, epoch=0, now_ms=0))


def closed(catalog, name):
    return catalog.write(lambda t: packs.number_for(t, name, epoch=0, now_ms=0, size_bytes=9))


def test_notes_are_kept_by_key_and_overwritten(catalog):
    catalog.write(store_copy.begin_notes)
    catalog.write(store_copy.begin_notes)
    begun, done, bad = Note("a", 5), Note("b", 7, "ab" * 32), Note("c", 9, "cd" * 32, "torn")
    assert begun.digest == BEGUN
    catalog.write(lambda t: store_copy.note(t, [begun, done, bad]))
    keys = [str(number) for number in range(2 * store_copy.KEYS_PER_QUERY)]
    assert catalog.read(lambda t: store_copy.notes(t, [*keys, "a", "c"])) == {"a": begun, "c": bad}
    assert catalog.read(lambda t: store_copy.notes_page(t, after="a", limit=1)) == [done]
    copied = begun._replace(digest="ef" * 32)
    catalog.write(lambda t: store_copy.note(t, [copied]))
    catalog.write(lambda t: store_copy.forget_note(t, "b"))
    assert catalog.read(lambda t: store_copy.notes_page(t, after="", limit=9)) == [copied, bad]
    catalog.write(store_copy.end_notes)


def test_packs_that_have_a_file_are_copied(catalog):
    one, two, three = (closed(catalog, name) for name in ("p", "q", "r"))
    insert_chunk(catalog, A, "p", 0)
    for number in (two, three):
        catalog.write(lambda t, number=number: packs.retire(t, number, now_ms=5))
    catalog.write(lambda t: packs.drop(t, three, epoch=1, before_ms=5))
    named = [NamedPack(one, "p"), NamedPack(two, "q")]
    assert catalog.read(lambda t: store_copy.packs(t, after=0, limit=9)) == named
    assert catalog.read(lambda t: store_copy.packs(t, after=one, limit=9)) == named[1:]
    assert catalog.read(lambda t: store_copy.pack_names(t, ["p", "q", "r", "none"])) == {"p", "q"}


def test_blobs_are_packs_and_parts_of_records(catalog):
    catalog.write(lambda t: t.run("DELETE FROM record"))
    closed(catalog, "p")
    key = RecordKey(VAULT, 1)
    catalog.write(lambda t: records.touch(t, key))
    assert catalog.read(store_copy.count_blobs) == 1
    catalog.write(lambda t: records.finish(t, key, 1, parts=3, entries=9, previous=None))
    assert catalog.read(store_copy.count_blobs) == 4


def test_chunks_are_measured_by_their_envelopes(catalog):
    insert_chunk(catalog, A, "p", 0)
    insert_chunk(catalog, B, "p", 50)
    assert catalog.read(lambda t: store_copy.chunk_bytes(t, (0, b""), (1, A))) == 50
    assert catalog.read(lambda t: store_copy.chunk_bytes(t, (0, b""), (9, b""))) == 100
    assert catalog.read(lambda t: store_copy.first_chunk(t, 1)) == (1, A, 4, 0, 50, 10)
    assert catalog.read(lambda t: store_copy.first_chunk(t, 9)) is None


def test_a_catalog_with_a_vault_belongs_to_a_store(catalog):
    assert catalog.read(store_copy.schema_version) >= 8
    assert not catalog.read(store_copy.is_empty)
    catalog.write(lambda t: t.run("DELETE FROM vault"))
    assert catalog.read(store_copy.is_empty)
