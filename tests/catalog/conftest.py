"""An empty catalog with two vaults, in memory."""

from __future__ import annotations

import pytest

from cryostore.catalog import vaults
from support.memory_database import MemoryDatabase


@pytest.fixture
def catalog():
    """The vaults 1 and 2 are named v and w."""
    database = MemoryDatabase()
    for name in "vw":
        values = {"name": name, "creator_request_id": None, "encryption_key_arn": None, "tags": "{}", "created_ms": 0}
        database.write(lambda t, values=values: vaults.insert(t, **values))
    yield database
    database.close()
