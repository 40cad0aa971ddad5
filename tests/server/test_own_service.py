"""What a server does by itself, on a real data directory."""

from __future__ import annotations

import pytest

from cryostore.core.errors import StorageUnavailableError
from cryostore.core.time import DAY_MS
from cryostore.server.metrics import Slot, private_meter
from cryostore.server.worker import OwnService
from support.stores import opened


def test_a_server_scrubs_by_itself_and_logs_what_is_damaged(tmp_path, caplog):
    with opened(tmp_path / "data") as store:
        store.api().backup({"a": b"bytes" * 100})
        service = OwnService(store.service)
        (pack,) = tmp_path.rglob("*.pack")
        data = bytearray(pack.read_bytes())
        data[-1] ^= 1
        pack.write_bytes(data)
        service.maintain()
        store.clock.advance(DAY_MS)
        service.maintain()
    (line,) = caplog.messages
    assert line.startswith("scrub: 1 chunks found damaged")


def test_a_server_notices_that_its_catalog_is_away_and_back(tmp_path, monkeypatch):
    with opened(tmp_path / "data") as store:
        service = OwnService(store.service)
        meter = private_meter()
        shown = Slot(meter._numbers)

        def away(_):
            raise StorageUnavailableError("the catalog is away")

        def seen():
            service.publish(meter)
            return shown.value("store_away")

        service.recover()
        assert seen() == 0
        with monkeypatch.context() as patched:
            patched.setattr(store.service.context.database, "read", away)
            with pytest.raises(StorageUnavailableError):
                service.recover()
            assert seen() == 1
        service.recover()
        assert seen() == 0
        store.service.outdated = True
        assert seen() == 1
