"""Fixtures for background tasks: a catalog with a frozen clock, and a snapshot of its rows."""

from __future__ import annotations

import pytest

from support.catalogs.catalog_model import CatalogModel


@pytest.fixture
def model():
    """A catalog with a model of its content. Closing it checks that everything can still be deleted without a leak."""
    with CatalogModel(batch_rows=2) as model:
        yield model
        model.check()


@pytest.fixture
def snapshot(model):
    """Return all rows of all tables except the named ones, for comparison."""

    def take(*left_out):
        def work(transaction):
            tables = [name for (name,) in transaction.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: transaction.rows(f"SELECT * FROM {name}") for name in tables if name not in left_out}

        return model.database.read(work)

    return take
