"""Chunk lists: their bytes, and their parts in the catalog."""

from __future__ import annotations

import itertools
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.catalog.rows import chunk_lists
from cryostore.catalog.rows.chunk_lists import PART_CHUNKS, ChunkEntry, pack, unpack
from cryostore.core.digest import Form
from cryostore.core.errors import DamagedDataError
from cryostore.core.limits import Limits
from support.catalogs.memory_database import MemoryDatabase
from support.project import ROOT

INDEX_MAX = 2**63 - 1
ENTRIES = st.lists(
    st.builds(
        ChunkEntry,
        chunk_index=st.one_of(st.integers(0, 20), st.integers(0, INDEX_MAX)),
        length=st.integers(0, Limits().chunk_bytes_max),
        digest=st.binary(min_size=32, max_size=32),
        form=st.sampled_from([int(Form.BASE64), int(Form.HEX)]),
    ),
    max_size=30,
    unique_by=lambda entry: entry.chunk_index,
).map(sorted)
GOLDEN = {
    "run": [
        ChunkEntry(5, 0, bytes(range(32)), Form.BASE64),
        ChunkEntry(6, 64 << 20, bytes(range(32, 64)), Form.HEX),
        ChunkEntry(7, 1, b"\xff" * 32, Form.BASE64),
    ],
    "indexed": [
        ChunkEntry(0, 4096, bytes(32), Form.HEX),
        ChunkEntry(2, 4096, b"\x01" * 32, Form.HEX),
        ChunkEntry(INDEX_MAX, 7, b"\xfe" * 32, Form.BASE64),
    ],
    "empty": [],
}


def golden(name):
    return bytes.fromhex((ROOT / "tests" / "golden" / f"chunk-list-{name}.hex").read_text())


@pytest.mark.parametrize("name", GOLDEN)
def test_the_format_is_that_of_released_versions(name):
    """Lists of every released version can be read, and are still written the same in version 1 and 2."""
    assert pack(GOLDEN[name]).hex() == golden(name).hex()
    assert unpack(golden(name)) == GOLDEN[name]


@given(ENTRIES)
def test_unpack_reverses_pack(entries):
    assert unpack(pack(entries)) == entries


def test_the_largest_length_fits_beside_the_form():
    largest = Limits().chunk_bytes_max
    for form in Form:
        (entry,) = unpack(pack([ChunkEntry(0, largest, bytes(32), form)]))
        assert (entry.length, entry.form) == (64 << 20, form)


def test_consecutive_chunks_need_no_indexes():
    """A list of consecutive indexes with any first index takes 36 bytes per chunk; one with gaps takes 44."""
    run = [ChunkEntry(INDEX_MAX - 9 + place, 1, bytes(32), 0) for place in range(10)]
    assert len(pack(run)) == 20 + 36 * 10
    assert len(pack([*run[:3], *run[4:]])) == 20 + 44 * 9
    assert unpack(pack(run)) == run


@pytest.mark.parametrize("name", GOLDEN)
def test_every_damaged_bit_is_noticed(name):
    whole = golden(name)
    for place, bit in itertools.product(range(len(whole)), range(8)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        with pytest.raises(DamagedDataError):
            unpack(bytes(damaged))


@pytest.mark.parametrize("name", GOLDEN)
def test_every_missing_or_extra_byte_is_noticed(name):
    whole = golden(name)
    for damaged in [*(whole[:end] for end in range(len(whole))), whole + b"\0", whole[1:], whole[:-4] * 2 + whole[-4:]]:
        with pytest.raises(DamagedDataError):
            unpack(damaged)


@given(st.binary(max_size=100))
def test_foreign_bytes_are_refused(foreign):
    """Even with a matching checksum, only a list is read as a list."""
    with pytest.raises(DamagedDataError):
        unpack(foreign + struct.pack(">I", zlib.crc32(foreign) ^ 1))
    try:
        entries = unpack(foreign + struct.pack(">I", zlib.crc32(foreign)))
    except DamagedDataError:
        return
    assert 16 + len(entries) * 36 <= len(foreign)


def test_a_count_that_exceeds_the_data_is_refused():
    head = struct.pack(">BxxxIQ", 2, 2**32 - 1, 0)
    with pytest.raises(DamagedDataError):
        unpack(head + struct.pack(">I", zlib.crc32(head)))


# --- parts


def part(first, count, *, step=1):
    return [ChunkEntry(first + place * step, 1, bytes(32), 0) for place in range(count)]


@pytest.fixture
def database():
    """A catalog with list 7 in three parts, between two other lists."""
    database = MemoryDatabase()
    lists = {
        6: [part(0, 3)],
        7: [part(10, PART_CHUNKS), part(5000, PART_CHUNKS, step=10), part(10**6, 1)],
        8: [part(0, 2)],
    }
    for list_id, parts in lists.items():
        rows = [(number, entries[0].chunk_index, pack(entries)) for number, entries in enumerate(parts)]
        database.write(lambda t, list_id=list_id, rows=rows: chunk_lists.insert_parts(t, list_id, rows))
    yield database
    database.close()


def first_indexes(database, list_id, index):
    """Return the first index of each part, from the part with `index` on."""
    return database.read(
        lambda t: [unpack(chunks)[0].chunk_index for chunks in chunk_lists.parts_from(t, list_id, index)]
    )


@pytest.mark.parametrize(
    ("index", "wanted"),
    [
        (0, [10, 5000, 10**6]), (10, [10, 5000, 10**6]), (4999, [10, 5000, 10**6]), (5000, [5000, 10**6]),
        (10**6 - 1, [5000, 10**6]), (10**6, [10**6]), (INDEX_MAX, [10**6]),
    ],
)  # fmt: skip
def test_reading_begins_at_the_part_with_the_index(database, index, wanted):
    assert first_indexes(database, 7, index) == wanted


def test_a_list_without_parts_is_empty(database):
    assert first_indexes(database, 9, 0) == []


def test_a_part_that_is_written_again_replaces_the_first(database):
    """The repetition of an interrupted completion does so."""
    database.write(lambda t: chunk_lists.insert_parts(t, 7, [(1, 4000, pack(part(4000, 5)))]))
    assert first_indexes(database, 7, 0) == [10, 4000, 10**6]


def test_delete_removes_only_one_list(database):
    database.write(lambda t: chunk_lists.delete(t, 7))
    assert [first_indexes(database, list_id, 0) for list_id in (6, 7, 8)] == [[0], [], [0]]


def test_delete_some_returns_how_many_it_removed(database):
    removed = [database.write(lambda t: chunk_lists.delete_some(t, 7, 2)) for _ in range(3)]
    assert removed == [2, 1, 0]
    assert [first_indexes(database, list_id, 0) for list_id in (6, 7, 8)] == [[0], [], [0]]
