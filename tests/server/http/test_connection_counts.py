"""Connection counts in shared memory: one worker writes, the others read."""

from __future__ import annotations

import os

import pytest

from cryostore.server.http.connection_counts import ABSENT, ConnectionCounts, create_connection_counts, mark_absent


@pytest.fixture
def descriptor():
    descriptor = create_connection_counts(3)
    yield descriptor
    os.close(descriptor)


def test_the_lowest_count_of_the_other_workers_is_found(descriptor):
    workers = [ConnectionCounts(descriptor, slot) for slot in range(3)]
    assert workers[0].fewest_elsewhere() == ABSENT
    workers[0].publish(1)
    workers[1].publish(5)
    assert [one.fewest_elsewhere() for one in workers] == [5, 1, 1]


def test_a_worker_that_exited_counts_as_absent(descriptor):
    first, second = ConnectionCounts(descriptor, 0), ConnectionCounts(descriptor, 1)
    second.publish(0)
    assert first.fewest_elsewhere() == 0
    mark_absent(descriptor, 1)
    assert first.fewest_elsewhere() == ABSENT


def test_a_single_worker_has_no_others():
    descriptor = create_connection_counts(1)
    assert ConnectionCounts(descriptor, 0).fewest_elsewhere() == ABSENT
    os.close(descriptor)
