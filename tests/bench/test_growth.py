"""Measurement of growth, on catalogs of a few rows: the rows satisfy the schema, and every call succeeds."""

from __future__ import annotations

import pytest
from bench.growth import CALLS, Growth, byte_rows, measure, time_rows
from bench.shared_store import grown_store, services

from bench import growth
from support.services import postgres


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_every_call_is_timed_on_both_catalogs(tmp_path, engine, monkeypatch):
    if engine == "postgres":
        monkeypatch.setenv(services.POSTGRES, postgres.required())
    monkeypatch.setattr(grown_store, "READABLE_CHUNKS", 3)
    monkeypatch.setattr(growth, "WARM_UP", 0)
    growths, by_rows = measure(engine, tmp_path, (200, 2_000), share=0.0)
    assert [each.call for each in growths] == list(CALLS)
    assert all(each.small_ms > 0 and each.large_ms > 0 for each in growths)
    assert list(by_rows) == [200, 2_000]
    of_chunks = sum(size for name, size in by_rows[2_000].items() if name.startswith(("chunk", "pack", "file")))
    assert 80 < of_chunks < 400
    assert list(tmp_path.iterdir()) == []


def test_missed_figures_are_reported():
    rows = list(time_rows([Growth("e", "a", 3, 1.0, 1.5), Growth("e", "b", 3, 1.0, 1.6)]))
    assert [row[-1] for row in rows] == ["holds", "MISSED"]
    rows = list(
        byte_rows("e", {10: {"chunk": 150.0, "chunk_pkey": 41.0, "pack": 9.0, "object": 5.0}, 20: {"chunk": 201.0}})
    )
    assert [(row[2], row[4]) for row in rows] == [("200", "holds"), ("201", "MISSED")]
