"""Statistics of a whole store, for monitoring."""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.catalog.processes import claims
from cryostore.catalog.queries import damage
from cryostore.catalog.rows import jobs, packs, recovery_points, restore_jobs
from cryostore.core.time import seconds
from cryostore.maintenance.claims import GARBAGE_COLLECTION, SCRUB
from cryostore.maintenance.garbage_collection.run import CollectionSummary
from cryostore.service import Context


class StoreStatistics(NamedTuple):
    """Counts, sizes and times of a store.

    `collected_seconds` and `scrubbed_seconds` are the times at which the last run finished, in seconds since 1970; 0 if
    no run has finished. `store_bytes` is the size of the packs whose size is recorded in the catalog. `garbage_bytes`
    is the garbage that the last collection left in quarantine.
    """

    recovery_points: int
    chunks_damaged: int
    collected_seconds: float
    collection_passes: int
    collection_false_share: float
    garbage_bytes: int
    scrubbed_seconds: float
    store_bytes: int
    claims_held: int
    backup_jobs_open: int
    restore_jobs_open: int


def store_statistics(context: Context) -> StoreStatistics:
    """Return the current statistics. Costs one pass over the recovery points and one over the damaged chunks."""

    def work(transaction: Transaction) -> StoreStatistics:
        collection = claims.find(transaction, GARBAGE_COLLECTION)
        return StoreStatistics(
            recovery_points.count(transaction),
            damage.count(transaction),
            seconds(collection.finished_ms),
            *CollectionSummary.of_place(collection.place),
            seconds(claims.find(transaction, SCRUB).finished_ms),
            packs.noted_bytes(transaction),
            len(claims.held(transaction)),
            jobs.count_open(transaction),
            restore_jobs.count_open(transaction),
        )

    return context.database.read(work)
