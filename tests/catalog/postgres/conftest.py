"""One catalog on PostgreSQL, opened twice: by two nodes."""

from __future__ import annotations

from contextlib import closing

import pytest

from cryostore.catalog.postgres.engine import PostgresDatabase


@pytest.fixture
def database(postgres_url):
    with closing(PostgresDatabase(postgres_url)) as database:
        yield database


@pytest.fixture
def other(postgres_url):
    """Another node."""
    with closing(PostgresDatabase(postgres_url)) as database:
        yield database
