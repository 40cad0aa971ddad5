"""The mark phase: every chunk that an upload or an object refers to is in the set."""

from __future__ import annotations

import pytest

from cryostore.core.errors import DamagedDataError
from cryostore.maintenance.garbage_collection.mark import count_chunks, mark
from cryostore.maintenance.garbage_collection.run import CollectionResult, CollectionRun
from support.faults.damaging import noise
from support.requests.api import sha
from support.stores.shop import DATA, Shop

ALL = range(256)


def finished(steps):
    """Run steps to their end and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def marked(shop, share=ALL):
    run = CollectionRun.begin(shop.context, CollectionResult(), quarantine_ms=0, dry_run=True)
    return finished(mark(run, finished(count_chunks(run)), share))


def vault_id(shop):
    ((found,),) = shop.store.database.read(lambda t: t.rows("SELECT DISTINCT vault_id FROM chunk"))
    return found


def test_chunks_of_objects_and_of_open_uploads_are_marked():
    shop = Shop()
    job = shop.api.running_job()
    shop.api.chunk(job, shop.api.start(job, "begun"), 0, noise(50))
    found = marked(shop)
    for data in (*DATA, noise(50)):
        assert found.holds(vault_id(shop), sha(data))


def test_a_chunk_without_a_reference_is_not_marked():
    shop = Shop()
    assert not marked(shop).holds(vault_id(shop), sha(noise(99)))


def test_a_share_leaves_out_all_other_digests():
    shop = Shop()
    low, high = marked(shop, range(128)), marked(shop, range(128, 256))
    for data in DATA:
        digest = sha(data)
        assert (low if digest[0] < 128 else high).holds(vault_id(shop), digest)


def test_an_object_without_a_vault_stops_the_run():
    shop = Shop()
    shop.store.database.write(lambda t: t.run("UPDATE object SET lineage_id = 999 WHERE object_id = 1"))
    with pytest.raises(DamagedDataError, match="belongs to no vault"):
        marked(shop)
