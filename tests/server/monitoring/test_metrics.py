"""The metrics that a worker writes: no count is lost, and a slot outlives its worker."""

from __future__ import annotations

import os
import threading

import pytest

from cryostore.server.monitoring.metrics import SharedMetrics, Slot, create_shared_metrics, private_meter


@pytest.fixture
def descriptor():
    descriptor = create_shared_metrics(2)
    yield descriptor
    os.close(descriptor)


def test_threads_lose_no_count():
    meter = private_meter()
    threads = [threading.Thread(target=lambda: [meter.failure("unavailable") for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Slot(meter._numbers).value("failure unavailable") == 8000


def test_a_slot_keeps_the_counters_of_a_worker_that_exited(descriptor):
    """Two views of one file stand for two processes."""
    worker, supervisor = SharedMetrics(descriptor, lambda: 7.0), SharedMetrics(descriptor)
    worker.meter(1).add("chunks_stored", 3)
    worker.meter(1).show(connections=5)
    worker.meter(1).show_store(recovery_points=2)
    slot = supervisor.slots[1]
    names = ("chunks_stored", "connections", "heartbeat", "recovery_points", "store_seen")
    assert [slot.value(name) for name in names] == [3, 5, 7, 2, 7]
    supervisor.clear_gauges(1)
    assert [slot.value(name) for name in names] == [3, 0, 0, 0, 0]
    worker.meter(1).add("chunks_stored", 1)
    assert slot.value("chunks_stored") == 4
    assert supervisor.slots[0].value("chunks_stored") == 0


def test_an_operation_has_its_own_numbers():
    meter = private_meter()
    meter.request("PutChunk", 200, 0.5, 10, 20)
    meter.request(None, 404, 0.25, 1, 2)
    slot = Slot(meter._numbers)
    assert slot.requests("PutChunk") == [0, 1, 0, 0, 0]
    assert slot.requests("none") == [0, 0, 0, 1, 0]
    assert slot.requests("GetChunk") == [0, 0, 0, 0, 0]
    assert (slot.traffic("PutChunk"), slot.traffic("none")) == ((10, 20), (1, 2))
    assert slot.durations("PutChunk")[1] == 0.5
