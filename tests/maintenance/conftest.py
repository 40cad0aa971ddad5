"""A catalog with a frozen clock, and a snapshot of the rows that a background task must leave alone."""

from __future__ import annotations

import pytest

from support.catalogs.catalog_model import CatalogModel


@pytest.fixture
def model():
    """Closing it shows that everything can still be deleted without a leak."""
    with CatalogModel(batch_rows=2) as model:
        yield model
        model.check()


@pytest.fixture
def snapshot(model):
    """All rows of all tables but the named ones, to compare."""

    def take(*left_out):
        def work(transaction):
            tables = [name for (name,) in transaction.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: transaction.rows(f"SELECT * FROM {name}") for name in tables if name not in left_out}

        return model.database.read(work)

    return take
