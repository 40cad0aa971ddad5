"""Identity columns: a number is never given out twice, even without a row, on each engine."""

from __future__ import annotations

from functools import partial

import pytest

from cryostore.catalog import open_catalog, sequences, tables
from cryostore.catalog.sequences import EMPTY, CountedTo
from cryostore.catalog.tables import TABLES
from support.catalogs.memory_database import MemoryDatabase
from support.services import postgres

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


def rows_of(database, table):
    return database.read(partial(tables.page, table=table, after=None, limit=10))


def counted_to(database, table):
    with pytest.raises(CountedTo) as answer:
        database.write(partial(sequences.count_to, table=table))
    return answer.value.number


@pytest.mark.parametrize("name", sorted(EMPTY))
def test_a_number_that_was_passed_is_not_given_out_again(database, name):
    table = BY_NAME[name]
    for number in (7, 3, 7):
        database.write(partial(sequences.count_from, table=table, number=number))
        assert rows_of(database, table) == []
    assert rows_of(database, BY_NAME["vault"]) == []
    for _ in range(2):
        assert 7 <= counted_to(database, table) <= 11  # asking may take some
        assert rows_of(database, table) == []


def test_every_number_is_known():
    assert {table.name for table in TABLES if table.number} == set(EMPTY)
