"""The sweep phase: unmarked chunks are condemned, and removed one quarantine later; used ones stay."""

from __future__ import annotations

from collections import defaultdict

import pytest

from cryostore.maintenance.garbage_collection.collect import sweep
from cryostore.maintenance.garbage_collection.mark import DigestSet
from cryostore.maintenance.garbage_collection.run import CollectionResult, CollectionRun
from support.stores.shop import DATA, Shop

QUARANTINE_MS = 1000


def swept(shop, *, dry_run=False, shares=(range(256),)):
    """Sweep with nothing marked, in a new run."""
    run = CollectionRun.begin(shop.context, CollectionResult(), quarantine_ms=QUARANTINE_MS, dry_run=dry_run)
    live_bytes = defaultdict(int)
    for share in shares:
        for _ in sweep(run, DigestSet(0, 1, share=share), live_bytes):
            pass
    return run.outcome, sum(live_bytes.values())


def chunk_bytes(shop):
    return shop.store.database.read(lambda t: t.row("SELECT coalesce(sum(sealed_length), 0) FROM chunk"))[0]


@pytest.mark.parametrize("shares", [(range(256),), (range(100), range(100, 256))], ids=["one", "two"])
def test_unmarked_chunks_are_condemned_and_then_removed(shares):
    shop = Shop()
    before = chunk_bytes(shop)
    outcome, live_bytes = swept(shop, shares=shares)
    assert (outcome.chunks, outcome.condemned, outcome.waiting, outcome.removed) == (len(DATA),) * 3 + (0,)
    assert live_bytes == before, "condemned chunks count as live"
    shop.store.clock.advance(QUARANTINE_MS - 1)
    assert swept(shop, shares=shares)[0].removed == 0
    shop.store.clock.advance(1)
    outcome, live_bytes = swept(shop, shares=shares)
    assert (outcome.removed, outcome.waiting, live_bytes, chunk_bytes(shop)) == (len(DATA), 0, 0, 0)


def test_a_chunk_that_was_used_since_the_run_began_is_not_condemned():
    shop = Shop()
    run = CollectionRun.begin(shop.context, CollectionResult(), quarantine_ms=0, dry_run=False)
    shop.api.backup({"again": DATA[0]})
    for _ in sweep(run, DigestSet(0, 1), defaultdict(int)):
        pass
    assert run.outcome.condemned == len(DATA) - 1


def test_a_dry_run_only_counts():
    shop = Shop()
    assert swept(shop, dry_run=True)[0].condemned == len(DATA)
    assert swept(shop)[0].condemned == len(DATA), "the dry run condemned nothing"
