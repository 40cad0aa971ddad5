"""The statistics of a store, for monitoring."""

from __future__ import annotations

import os

from cryostore.maintenance.claims import SCRUB, claimed
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.store_statistics import StoreStatistics, store_statistics
from support.stores.in_process import opened


def test_statistics(tmp_path):
    with opened(tmp_path / "data") as store:
        assert store_statistics(store.service.context) == StoreStatistics(0, 0, 0.0, 0, 0.0, 0, 0.0, 0, 0, 0, 0)
        store.api().backup({"a": b"1"})
        collect_all(store.service.context)
        seen = store_statistics(store.service.context)
        assert seen == StoreStatistics(1, 0, store.clock() / 1000, 1, 0.0, 0, 0.0, seen.store_bytes, 0, 0, 0)


def test_statistics_of_work_and_garbage(tmp_path):
    with opened(tmp_path / "data") as store:
        api = store.api()
        arn = api.backup({"a": os.urandom(5000)})
        api.delete_point(arn)
        other = store.api()
        other.restore(other.backup({"b": b"1"}))
        other.running_job()
        store.maintain()
        collect_all(store.service.context)
        with claimed(store.service.context, SCRUB):
            seen = store_statistics(store.service.context)
        assert seen.garbage_bytes >= 5000, "in quarantine"
        assert (seen.claims_held, seen.backup_jobs_open, seen.restore_jobs_open) == (1, 1, 1)
        assert seen.scrubbed_seconds == 0
        assert store_statistics(store.service.context).scrubbed_seconds == store.clock() / 1000
