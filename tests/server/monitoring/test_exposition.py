"""The metrics as Prometheus' text, read by an independent parser: sums over workers, living workers, the store."""

from __future__ import annotations

import os

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cryostore.core.traffic import Traffic
from cryostore.model import OPERATIONS
from cryostore.server.monitoring import exposition
from cryostore.server.monitoring.exposition import DiskState, text
from cryostore.server.monitoring.metrics import FAILURES, NONE, OPERATION_NAMES, SharedMetrics, create_shared_metrics


@pytest.fixture
def now():
    """The clock of the metrics, in seconds."""
    return [1000.0]


@pytest.fixture
def shared(now):
    descriptor = create_shared_metrics(3)
    yield SharedMetrics(descriptor, lambda: now[0])
    os.close(descriptor)


def samples(shared, disk=DiskState()):  # noqa: B008 - frozen
    """Every sample of the text by name and labels."""
    families = text_string_to_metric_families(text(shared, disk).decode())
    return {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}


def test_the_workers_are_added_up(shared):
    shared.meter(0).request("PutChunk", 200, 0.004, 1000, 10)
    shared.meter(2).request("PutChunk", 200, 0.2, 2000, 20)
    shared.meter(2).request("PutChunk", 503, 100.0, 0, 30)
    found = samples(shared)
    assert found["cryostore_requests_total", "2xx", "PutChunk"] == 2
    assert found["cryostore_requests_total", "5xx", "PutChunk"] == 1
    assert found["cryostore_request_bytes_total", "PutChunk"] == 3000
    assert found["cryostore_response_bytes_total", "PutChunk"] == 60
    buckets = {bound: found["cryostore_request_seconds_bucket", *sorted((bound, "PutChunk"))]
               for bound in ("0.0025", "0.005", "0.1", "0.25", "30.0", "+Inf")}  # fmt: skip
    assert buckets == {"0.0025": 0, "0.005": 1, "0.1": 1, "0.25": 2, "30.0": 2, "+Inf": 3}
    assert found["cryostore_request_seconds_sum", "PutChunk"] == pytest.approx(100.204)
    assert found["cryostore_request_seconds_count", "PutChunk"] == 3


def test_a_duration_equal_to_a_bound_is_within_its_bucket(shared):
    shared.meter(0).request("GetChunk", 200, 0.005, 0, 0)
    found = samples(shared)
    assert found["cryostore_request_seconds_bucket", "0.005", "GetChunk"] == 1
    assert found["cryostore_request_seconds_bucket", "0.0025", "GetChunk"] == 0


def test_every_operation_and_status_is_counted_separately(shared):
    for number, name in enumerate(OPERATION_NAMES, start=1):
        for status in (200, 301, 404, 500):
            for _ in range(number):
                shared.meter(1).request(name, status, 0.0, 1, 2)
    found = samples(shared)
    for number, name in enumerate(OPERATION_NAMES, start=1):
        assert found["cryostore_request_bytes_total", name] == 4 * number
        for status in ("2xx", "3xx", "4xx", "5xx"):
            assert found["cryostore_requests_total", *sorted((status, name))] == number
    assert set(OPERATION_NAMES) == {*OPERATIONS, NONE}


def test_requests_without_an_operation_are_counted_under_one_name(shared):
    shared.meter(0).request(None, 404, 0.1, 0, 5)
    assert samples(shared)["cryostore_requests_total", "4xx", NONE] == 1


def test_failures_and_totals(shared):
    for kind in FAILURES:
        shared.meter(0).failure(kind)
    shared.meter(1).failure("full")
    shared.meter(1).add("chunks_stored", 7)
    shared.meter(2).add("chunks_stored", 3)
    found = samples(shared)
    assert {kind: found["cryostore_storage_failures_total", kind] for kind in FAILURES} == {
        **dict.fromkeys(FAILURES, 1), "full": 2
    }  # fmt: skip
    assert found["cryostore_chunks_stored_total",] == 10
    assert found["cryostore_chunks_deduplicated_total",] == 0


def test_traffic_to_the_parts_of_a_shared_store(shared):
    """A part without requests has no metrics: a data directory has neither part."""
    assert not [name for name, *_ in samples(shared) if name.startswith("cryostore_store_request")]
    for slot in (0, 1):
        traffic = Traffic("blob store")
        with traffic.request():
            pass
        traffic.failed("passing")
        traffic.retried("it broke")
        for number, value in traffic.numbers().items():
            shared.meter(slot).add(f"blobs {number}", value)
    found = samples(shared)
    assert found["cryostore_store_requests_total", "blobs"] == 2
    assert found["cryostore_store_request_failures_total", "blobs", "passing"] == 2
    assert found["cryostore_store_request_failures_total", "blobs", "refused"] == 0
    assert found["cryostore_store_request_retries_total", "blobs"] == 2
    assert found["cryostore_store_request_seconds_count", "blobs"] == 2


def test_gauges_are_of_living_workers_and_counters_of_all(shared, now):
    assert samples(shared)["cryostore_workers",] == 0
    shared.meter(0).request("PutObject", 200, 0.1, 0, 0)
    shared.meter(0).show(connections=5)
    now[0] += exposition.FRESH_SECONDS / 2
    shared.meter(1).show(connections=2)
    assert samples(shared)["cryostore_connections",] == 7
    now[0] += exposition.FRESH_SECONDS / 2 + 1
    found = samples(shared)
    assert (found["cryostore_workers",], found["cryostore_connections",]) == (1, 2)
    shared.clear_gauges(1)
    found = samples(shared)
    assert (found["cryostore_workers",], found["cryostore_connections",]) == (0, 0)
    assert found["cryostore_requests_total", "2xx", "PutObject"] == 1


def test_the_gauges_of_the_store_are_the_newest(shared, now):
    shared.meter(0).show(connections=0)
    assert ("cryostore_recovery_points",) not in samples(shared)
    shared.meter(0).show_store(recovery_points=9, chunks_damaged=1, collected_seconds=1.7e9)
    now[0] += 1
    shared.meter(1).show(connections=0)
    shared.meter(1).show_store(recovery_points=8, chunks_damaged=2, collected_seconds=1.8e9, collection_passes=3)
    found = samples(shared)
    assert found["cryostore_recovery_points",] == 8
    assert found["cryostore_chunks_damaged",] == 2
    assert found["cryostore_garbage_collection_finished_timestamp_seconds",] == 1.8e9
    assert found["cryostore_garbage_collection_passes",] == 3


def test_the_disk(shared):
    found = samples(shared, DiskState(free_bytes=123, reserve_held=False))
    assert (found["cryostore_free_bytes",], found["cryostore_reserve_held",]) == (123, 0)
    assert not {("cryostore_free_bytes",), ("cryostore_reserve_held",)} & set(samples(shared))
