"""Traffic to a part of a shared store: what is counted, and what is logged."""

from __future__ import annotations

from cryostore.core import traffic as traffic_module
from cryostore.core.traffic import Traffic


def test_retries_are_logged_once_in_a_while(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(traffic_module, "monotonic", lambda: now[0])
    traffic = Traffic("blob store")
    for _ in range(100):
        traffic.retried("it broke")
        traffic.retried()
    now[0] += traffic_module.LINE_SECONDS
    traffic.retried("it broke")
    assert [line.rpartition("(")[2] for line in caplog.messages] == [
        "0 such lines held back)",
        "99 such lines held back)",
    ]
    assert traffic.numbers()["retries"] == 201
