"""The board of the workers: what one writes there the others see."""

from __future__ import annotations

import os

import pytest

from cryostore.server.http.connection_counts import ABSENT, ConnectionCounts, create_connection_counts, mark_absent


@pytest.fixture
def descriptor():
    descriptor = create_connection_counts(3)
    yield descriptor
    os.close(descriptor)


def test_the_fewest_elsewhere_are_those_of_others(descriptor):
    workers = [ConnectionCounts(descriptor, slot) for slot in range(3)]
    assert workers[0].fewest_elsewhere() == ABSENT
    workers[0].publish(1)
    workers[1].publish(5)
    assert [one.fewest_elsewhere() for one in workers] == [5, 1, 1]


def test_a_worker_that_is_gone_is_waited_for_by_nobody(descriptor):
    first, second = ConnectionCounts(descriptor, 0), ConnectionCounts(descriptor, 1)
    second.publish(0)
    assert first.fewest_elsewhere() == 0
    mark_absent(descriptor, 1)
    assert first.fewest_elsewhere() == ABSENT


def test_a_worker_alone_has_nobody_to_wait_for():
    descriptor = create_connection_counts(1)
    assert ConnectionCounts(descriptor, 0).fewest_elsewhere() == ABSENT
    os.close(descriptor)
