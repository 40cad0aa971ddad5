"""Traffic counters: requests, durations, failures and retries, and few log lines."""

import logging

import pytest

from cryostore.core import traffic
from cryostore.core.traffic import KINDS, LINE_SECONDS, NUMBERS, Traffic


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(traffic, "monotonic", lambda: Clock.now)
    return Clock


def test_all_numbers_start_at_zero():
    assert Traffic("blobs").numbers() == dict.fromkeys(NUMBERS, 0.0)


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0009, 0), (0.002, 1), (30.0, 13), (31.0, 14)])
def test_a_request_is_counted_and_timed(clock, seconds, bucket):
    counters = Traffic("blobs")
    with counters.request():
        clock.now += seconds
    numbers = counters.numbers()
    assert numbers["requests"] == 1
    assert numbers["seconds"] == pytest.approx(seconds)
    assert numbers[f"bucket {bucket}"] == 1
    assert sum(numbers[name] for name in traffic.BUCKETS) == 1


def test_a_failed_request_counts_too(clock):
    counters = Traffic("blobs")
    with pytest.raises(OSError, match="away"), counters.request():
        raise OSError("away")
    assert counters.numbers()["requests"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_failures_are_counted_by_kind(kind):
    counters = Traffic("blobs")
    counters.failed(kind)
    assert {name: count for name, count in counters.numbers().items() if count} == {f"failure {kind}": 1}


def test_reasons_are_logged_once_per_period(clock, caplog):
    counters = Traffic("blobs")
    clock.now += 1
    with caplog.at_level(logging.WARNING, logger=traffic.__name__):
        for reason in ("", "first", "second", "third"):
            counters.retried(reason)
        clock.now += LINE_SECONDS
        counters.retried("fourth")
    assert counters.numbers()["retries"] == 5
    assert [record.message for record in caplog.records] == [
        "blobs: first; trying again (0 such lines held back)",
        "blobs: fourth; trying again (2 such lines held back)",
    ]
