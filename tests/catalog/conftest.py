"""An empty catalog with two vaults, on each engine: in SQLite's memory, and on a PostgreSQL server."""

from __future__ import annotations

import pytest

from cryostore.catalog.postgres.engine import PostgresDatabase
from cryostore.catalog.rows import vaults
from support.catalogs.memory_database import MemoryDatabase
from support.services import postgres


@pytest.fixture
def postgres_url():
    """The URL of a new database with the newest schema."""
    with postgres.new_database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def catalog(request):
    """An empty catalog, whose vaults 1 and 2 are named v and w."""
    if request.param == "sqlite":
        database = MemoryDatabase()
    else:
        database = PostgresDatabase(request.getfixturevalue("postgres_url"))
    for name in "vw":
        values = {"name": name, "creator_request_id": None, "encryption_key_arn": None, "tags": "{}", "created_ms": 0}
        database.write(lambda t, values=values: vaults.insert(t, **values))
    yield database
    database.close()
