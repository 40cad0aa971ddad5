"""Copy of rows: the target becomes equal to the source from any state, and numbers are never reused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.catalog import tables
from cryostore.catalog.tables import TABLES, CountedTo, count_to
from cryostore.core.errors import DamagedDataError
from cryostore.maintenance.migrate import rows as migrate_rows
from cryostore.maintenance.migrate.rows import copy_rows, count_rows, verify_rows
from cryostore.maintenance.migrate.side import Side
from support.catalogs.memory_database import MemoryDatabase
from support.stores.pair import rows

BY_NAME = {table.name: table for table in TABLES}
LINEAGES = st.sets(st.integers(1, 9))
CHUNKS = st.dictionaries(st.tuples(st.integers(1, 3), st.binary(min_size=1, max_size=2)), st.integers(0, 3), max_size=9)


def side(name, lineages=(), chunks=()):
    """Make a catalog with a vault, lineages that each continue the one before, and chunks of these lengths."""
    database = MemoryDatabase()

    def fill(transaction):
        tables.insert(transaction, BY_NAME["vault"], [(1, "v", None, None, "{}", 0)])
        before = None
        for number in sorted(lineages):
            row = (number, 1, before, before and 0, 1, 0, None, 0)
            tables.insert(transaction, BY_NAME["lineage"], [row])
            before = number
        for (vault_id, digest), length in sorted(dict(chunks).items()):
            row = (vault_id, digest, 1, 1, 0, length, length, None, None, 0)
            tables.insert(transaction, BY_NAME["chunk"], [row])

    database.write(fill)
    return Side(name, database, None)


def copy(source, target):
    counted = {}
    for _ in copy_rows(source, target, counted):
        pass
    for _ in verify_rows(source, target, counted, {}):
        pass


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Let pages and batches hold a few rows, so that several are needed."""
    for name, value in (("ROWS_PER_PAGE", 3), ("ROWS_PER_BATCH", 2), ("ROWS_PER_STEP", 2), ("ROWS_COUNTED", 2)):
        monkeypatch.setattr(migrate_rows, name, value)


@given(LINEAGES, LINEAGES, CHUNKS, CHUNKS)
def test_the_target_becomes_equal_to_the_source_from_any_state(lineages, lineages_there, chunks, chunks_there):
    source, target = side("here", lineages, chunks), side("there", lineages_there, chunks_there)
    before = rows(source)
    copy(source, target)
    assert rows(target) == before == rows(source)


def test_all_rows_are_counted_whatever_the_page_size():
    source = side("here", range(1, 8), {(1, bytes([number])): 1 for number in range(9)})
    assert count_rows(source, [BY_NAME["lineage"]]) == 7
    assert count_rows(source, [BY_NAME["chunk"]]) == 9
    assert count_rows(source, [BY_NAME["object"]]) == 0


def counted_to(side, name):
    with pytest.raises(CountedTo) as answer:
        side.write(lambda transaction: count_to(transaction, BY_NAME[name]))
    return answer.value.number


def test_numbers_of_deleted_rows_are_not_reused():
    source, target = side("here", range(1, 8)), side("there")
    source.write(lambda transaction: transaction.run("DELETE FROM lineage WHERE lineage_id = 7"))
    assert counted_to(target, "lineage") == 0
    copy(source, target)
    assert counted_to(target, "lineage") == 7
    assert counted_to(target, "object") == 0


def test_numbers_that_would_be_reused_are_found():
    source, target, counted = side("here", [1]), side("there"), {}
    for _ in copy_rows(source, target, counted):
        pass
    counted["lineage"] = 9
    with pytest.raises(DamagedDataError, match="would reuse numbers of table lineage"):
        list(verify_rows(source, target, counted, {}))


@pytest.mark.parametrize("how", ["UPDATE chunk SET length = length + 1", "DELETE FROM chunk"])
def test_one_row_that_differs_is_found(how):
    chunks = {(1, bytes([number])): 1 for number in range(9)}
    source, target, counted = side("here", (), chunks), side("there"), {}
    for _ in copy_rows(source, target, counted):
        pass
    target.write(lambda transaction: transaction.run(f"{how} WHERE digest = :digest", digest=b"\x05"))
    with pytest.raises(DamagedDataError, match="table chunk is not the same"):
        list(verify_rows(source, target, counted, {}))
