"""The catalog and its model, in a real catalog file."""

from __future__ import annotations

import pytest

from cryostore.catalog import open_catalog
from support.catalogs.catalog_model import CatalogModel


@pytest.fixture
def model(tmp_path):
    with CatalogModel(batch_rows=2, database=open_catalog(tmp_path / "catalog.sqlite")) as model:
        yield model
        model.check()
