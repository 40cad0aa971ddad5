"""Marks of damaged chunks: they apply to one location, and are listed page by page."""

from __future__ import annotations

from cryostore.catalog.queries import damage
from cryostore.catalog.queries.damage import ChunkState, LocatedChunk
from cryostore.catalog.rows import chunks
from cryostore.catalog.rows.chunks import DIGESTS_PER_QUERY, ChunkRow

A, B = b"a" * 32, b"b" * 32
HERE = LocatedChunk(1, A, 1, 100)


def insert(catalog, digest=A, offset=100, vault=1):
    row = ChunkRow(1, "p", offset, 50, 10)
    assert catalog.write(lambda t: chunks.insert(t, vault, digest, row, epoch=0, now_ms=0))
    return row


def mark(catalog, chunk=HERE):
    return catalog.write(lambda t: damage.mark(t, chunk, now_ms=5))


def clear(catalog, chunk=HERE):
    return catalog.write(lambda t: damage.clear(t, chunk))


def test_a_chunk_is_marked_once_and_cleared_once(catalog):
    insert(catalog)
    assert [mark(catalog), mark(catalog)] == [True, False]
    assert catalog.read(damage.count) == 1
    assert [clear(catalog), clear(catalog)] == [True, False]
    assert catalog.read(damage.count) == 0


def test_a_chunk_that_moved_meanwhile_is_not_marked(catalog):
    insert(catalog)
    for elsewhere in (HERE._replace(pack_number=2), HERE._replace(pack_offset=300), HERE._replace(vault_id=2)):
        assert not mark(catalog, elsewhere)
        assert not catalog.read(lambda t, chunk=elsewhere: damage.stands(t, chunk))
    assert catalog.read(lambda t: damage.stands(t, HERE))


def test_a_chunk_of_a_deleted_vault_is_no_longer_located(catalog):
    insert(catalog, vault=9)
    assert not catalog.read(lambda t: damage.stands(t, HERE._replace(vault_id=9)))


def test_a_reader_marks_a_chunk_by_the_name_of_its_pack(catalog):
    row = insert(catalog)

    def mark_read(row):
        return catalog.write(lambda t: damage.mark_if_there(t, 1, A, row, 5))

    assert not mark_read(row._replace(pack_name="gone"))
    assert not mark_read(row._replace(pack_offset=300))
    assert mark_read(row)


def test_damaged_chunks_are_listed_by_vault_and_digest(catalog):
    for vault, digest in ((2, A), (1, B), (1, A)):
        insert(catalog, digest, vault=vault)
    for vault, digest in ((2, A), (1, A)):
        mark(catalog, LocatedChunk(vault, digest, 1, 100))
    assert catalog.read(lambda t: damage.page(t, after=(0, b""), limit=10)) == [(1, A), (2, A)]
    assert catalog.read(lambda t: damage.page(t, after=(1, A), limit=10)) == [(2, A)]


def test_the_states_of_many_chunks_are_read_at_once(catalog):
    insert(catalog)
    insert(catalog, B)
    mark(catalog)
    many = [number.to_bytes(32, "big") for number in range(2 * DIGESTS_PER_QUERY)]
    states = catalog.read(lambda t: damage.states(t, 1, [*many, A, B]))
    assert states == {A: ChunkState(damaged=True, length=10), B: ChunkState(damaged=False, length=10)}
