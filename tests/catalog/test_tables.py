"""Declarations of tables, compared with the schema of each engine, and the statements made from them.

A number of an identity column is never given out twice, even without a row.
"""

from __future__ import annotations

from functools import partial

import pytest

from cryostore.catalog import open_catalog, tables
from cryostore.catalog.tables import EMPTY_ROWS, NOT_OF_THE_STORE, TABLES, CountedTo
from support.catalogs.memory_database import MemoryDatabase
from support.services import postgres

SQLITE_COLUMNS = (
    "SELECT m.name, p.name FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS p"
    " WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'"
)
POSTGRES_COLUMNS = (
    "SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = current_schema()"
)
BY_NAME = {table.name: table for table in TABLES}


@pytest.fixture(params=["sqlite", "postgres"])
def database(request):
    if request.param == "sqlite":
        yield MemoryDatabase()
        return
    with postgres.new_database() as url:
        database = open_catalog(url)
        yield database
        database.close()


@pytest.fixture
def columns(database):
    """Return the columns of each table."""
    query = SQLITE_COLUMNS if isinstance(database, MemoryDatabase) else POSTGRES_COLUMNS
    found = {}
    for table, column in database.read(lambda transaction: transaction.rows(query)):
        found.setdefault(table, set()).add(column)
    return found


def test_every_table_and_column_is_declared(columns):
    """`cryo migrate` copies a new table, or NOT_OF_THE_STORE says why not."""
    for name in NOT_OF_THE_STORE:
        columns.pop(name, None)
    assert columns == {table.name: set(table.columns) for table in TABLES}


def test_a_table_comes_after_those_it_refers_to():
    names = [table.name for table in TABLES]
    for name, parent in (("vault_key", "vault"), ("lineage", "vault"), ("backup_job", "vault"), ("object", "lineage")):
        assert names.index(parent) < names.index(name)


def test_rows_are_written_and_read_by_key(database):
    """Pages, steps and counts agree; replacing and deleting change one row only."""
    table = BY_NAME["chunk_list"]
    rows = [(number // 4, number % 4, number, bytes([number])) for number in range(10)]
    database.write(partial(tables.insert, table=table, rows=rows))
    assert database.read(partial(tables.page, table=table, after=None, limit=99)) == rows
    assert database.read(partial(tables.page, table=table, after=(1, 2), limit=2)) == rows[7:9]
    assert database.read(partial(tables.step, table=table, after=None, rows=4)) == (0, 3)
    assert database.read(partial(tables.step, table=table, after=(1, 3), rows=3)) is None
    assert database.read(partial(tables.count_behind, table=table, after=(1, 3))) == 2
    database.write(partial(tables.replace, table=table, row=(1, 1, 500, b"x")))
    database.write(partial(tables.delete, table=table, key=(1, 2)))
    expected = [(1, 1, 500, b"x") if row[:2] == (1, 1) else row for row in rows if row[:2] != (1, 2)]
    assert database.read(partial(tables.page, table=table, after=None, limit=99)) == expected


def test_many_rows_are_inserted_by_few_statements(database):
    table = BY_NAME["idempotency"]
    rows = [("op", f"{number:06}", b"d", "a" * (number % 50), number) for number in range(9000)]
    database.write(partial(tables.insert, table=table, rows=rows))
    assert database.read(partial(tables.count_behind, table=table, after=None)) == 9000
    assert database.read(partial(tables.page, table=table, after=("op", "008997"), limit=9)) == rows[8998:]


# --- identity columns


def rows_of(database, table):
    return database.read(partial(tables.page, table=table, after=None, limit=10))


def counted_to(database, table):
    with pytest.raises(CountedTo) as answer:
        database.write(partial(tables.count_to, table=table))
    return answer.value.number


@pytest.mark.parametrize("name", sorted(EMPTY_ROWS))
def test_a_passed_number_is_never_given_out(database, name):
    table = BY_NAME[name]
    for number in (7, 3, 7):
        database.write(partial(tables.count_from, table=table, number=number))
        assert rows_of(database, table) == []
    assert rows_of(database, BY_NAME["vault"]) == []
    for _ in range(2):
        assert 7 <= counted_to(database, table) <= 11  # the query may use up some
        assert rows_of(database, table) == []


def test_every_identity_column_has_an_empty_row():
    assert {table.name for table in TABLES if table.number} == set(EMPTY_ROWS)
