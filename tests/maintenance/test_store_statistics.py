"""The statistics of a store, for monitoring."""

from __future__ import annotations

import os

from cryostore.chunks.disk_reserve import DiskReserve
from cryostore.core.errors import StorageFullError
from cryostore.maintenance.claims import SCRUB, claimed
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.store_statistics import StoreStatistics, store_statistics
from cryostore.service import Settings
from support.stores import opened


def test_figures(tmp_path):
    with opened(tmp_path / "data") as store:
        assert store_statistics(store.service.context) == StoreStatistics(0, 0, 0.0, 0, 0.0, 0, 0.0, 0, 0, 0, 0)
        store.api().backup({"a": b"1"})
        collect_all(store.service.context)
        seen = store_statistics(store.service.context)
        assert seen == StoreStatistics(1, 0, store.clock() / 1000, 1, 0.0, 0, 0.0, seen.store_bytes, 0, 0, 0)


def test_figures_of_work_and_garbage(tmp_path):
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


def half_dead(store):
    """A store whose packs hold one live chunk in three; answers what must still be there."""
    api = store.api()
    arn, kept = None, {}
    for _ in range(3):
        kept = {name: os.urandom(5000) for name in ("a", "b")}
        before, arn = arn, api.backup(kept)
        if before:
            api.delete_point(before)
    store.maintain()
    return lambda: api.restored(arn) == kept


def test_where_only_the_reserve_is_free_packs_are_not_copied_for_a_later_gain(tmp_path, monkeypatch):
    settings = Settings(reserve_bytes=1 << 20, pack_bytes_target=40_000)
    with opened(tmp_path / "data", settings=settings) as store:
        is_there = half_dead(store)
        context = store.service.context
        collect_all(context)
        store.clock.advance(settings.quarantine_ms + 1)
        monkeypatch.setattr(DiskReserve, "free_bytes", 1000)
        outcome = collect_all(context)
        assert (outcome.packs_skipped, outcome.packs_compacted, outcome.moved) == (1, 0, 0)
        assert context.reserve.held
        monkeypatch.undo()
        outcome = collect_all(context)
        assert (outcome.packs_skipped, outcome.packs_compacted) == (0, 1)
        assert is_there()


def test_for_a_gain_at_once_the_reserve_is_used(tmp_path, monkeypatch):
    settings = Settings(reserve_bytes=1 << 20, pack_bytes_target=40_000)
    with opened(tmp_path / "data", settings=settings) as store:
        is_there = half_dead(store)
        reserve = store.service.context.reserve
        room = property(lambda reserve: 1000 if reserve.held else 1 << 20)
        monkeypatch.setattr(DiskReserve, "free_bytes", room)
        outcome = collect_all(store.service.context, quarantine_ms=0)
        assert (outcome.packs_skipped, outcome.packs_compacted, outcome.packs_deleted) == (0, 1, 1)
        assert not reserve.held
        assert is_there()


def test_a_disk_that_fills_up_during_compaction_leaves_the_rest_for_later(tmp_path, monkeypatch):
    settings = Settings(pack_bytes_target=40_000)
    with opened(tmp_path / "data", settings=settings) as store:
        is_there = half_dead(store)
        context = store.service.context

        def full(envelopes):
            raise StorageFullError("no space")

        with monkeypatch.context() as patch:
            patch.setattr(context.store, "append", full)
            outcome = collect_all(context, quarantine_ms=0)
        assert (outcome.packs_skipped, outcome.packs_compacted) == (1, 0)
        assert is_there()
        assert collect_all(context, quarantine_ms=0).packs_compacted == 1
        assert is_there()
