"""The clock that all nodes of a store share."""

from __future__ import annotations

import itertools

from cryostore.catalog.postgres import clock as postgres_clock
from cryostore.catalog.postgres import engine as postgres
from cryostore.catalog.postgres.clock import DatabaseClock


def test_time_is_that_of_the_database(database):
    (before,) = database.read(lambda t: t.row(postgres.TIME))
    now = database.now_ms()
    (after,) = database.read(lambda t: t.row(postgres.TIME))
    assert before - 1000 <= now <= after + 1000


def test_time_never_goes_back(monkeypatch):
    """Not when the database's does, as after a failover; and it does not stand still for longer than that."""
    elapsed = itertools.count(100)
    monkeypatch.setattr(postgres_clock, "_elapsed_seconds", lambda: next(elapsed))
    clock = DatabaseClock()
    assert clock.is_due
    clock.end(clock.begin(), 50_000)
    assert [clock(), clock()] == [51_500, 52_500]
    clock.end(clock.begin(), 50_000)
    assert [clock(), clock(), clock()] == [52_500, 52_500, 53_500]
