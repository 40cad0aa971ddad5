"""One side of a migration: every storage error names it, and keeps its class."""

from __future__ import annotations

import pytest

from cryostore.chunks.blobs import open_blobs
from cryostore.core.errors import StorageFullError, StorageUnavailableError
from cryostore.maintenance.migrate.side import REPEAT, Side
from support.catalogs.memory_database import MemoryDatabase


def side():
    return Side("the old place", MemoryDatabase(), open_blobs("memory:"))


@pytest.mark.parametrize("kind", [StorageUnavailableError, StorageFullError])
@pytest.mark.parametrize("hint", ["", "wait"])
def test_a_storage_error_names_its_side(kind, hint):
    with pytest.raises(kind) as raised, side().named():
        raise kind("no answer", hint=hint)
    assert type(raised.value) is kind
    assert raised.value.message == "the old place: no answer"
    assert raised.value.hint == (hint or REPEAT)


def test_blobs_are_put_read_and_deleted():
    here = side()
    here.put("packs/ab/one", b"bytes")
    assert (here.get("packs/ab/one", 1, 2), here.stat("packs/ab/one")) == (b"yt", 5)
    assert here.has_any("packs/")
    assert not here.has_any("records/")
    here.delete("packs/ab/one")
    assert here.stat("packs/ab/one") is None
