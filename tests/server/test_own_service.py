"""What a server does by itself, on a real data directory."""

from __future__ import annotations

from cryostore.core.time import DAY_MS
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
