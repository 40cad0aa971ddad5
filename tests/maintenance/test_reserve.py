"""The reserve as time passes, and the figures of a store."""

from __future__ import annotations

import os

from cryostore.chunks.reserve import Reserve
from cryostore.maintenance.figures import Figures, figures
from cryostore.maintenance.gc import collect_all
from cryostore.service import Settings
from support.stores import opened


def test_a_round_of_duties_takes_it_back(tmp_path):
    with opened(tmp_path / "data", settings=Settings(reserve_bytes=4096)) as store:
        reserve = store.service.context.reserve
        reserve.give_up()
        store.maintain()
        assert reserve.held


def test_duties_and_collections_go_on_without_it(tmp_path, monkeypatch):
    with opened(tmp_path / "data", settings=Settings(reserve_bytes=4096)) as store:
        api = store.api()
        arn = api.backup({"a": os.urandom(10_000)})
        store.service.context.reserve.give_up()
        monkeypatch.setattr(Reserve, "free_bytes", 1 << 20)
        monkeypatch.setattr(Reserve, "size_bytes", 1 << 20)
        api.delete_point(arn)
        store.maintain()
        assert collect_all(store.service.context, quarantine_ms=0).removed == 1
        assert not store.service.context.reserve.held


def test_what_another_process_deleted_gives_its_room_back(tmp_path):
    with opened(tmp_path / "data", settings=Settings(pack_bytes_target=1000)) as store:
        api = store.api()
        arn = api.backup({"a": os.urandom(5000), "b": os.urandom(5000)})
        assert len(api.restored(arn)) == 2  # so its packs are open now
        blobs = store.service._blobs._inner
        assert len(blobs._files._files) == 2
        for path in (tmp_path / "data" / "packs").rglob("*.pack"):
            path.unlink()
        store.maintain()
        assert len(blobs._files._files) == 0


def test_figures(tmp_path):
    with opened(tmp_path / "data") as store:
        assert figures(store.service.context) == Figures(0, 0, 0.0)
        store.api().backup({"a": b"1"})
        collect_all(store.service.context)
        seen = figures(store.service.context)
        assert seen == Figures(1, 0, store.clock() / 1000)
