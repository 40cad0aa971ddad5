"""The board of the workers: what one writes there the others see."""

from __future__ import annotations

import os

import pytest

from cryostore.server.http.board import ABSENT, Board, clear_slot, create_board


@pytest.fixture
def descriptor():
    descriptor = create_board(3)
    yield descriptor
    os.close(descriptor)


def test_the_fewest_elsewhere_are_those_of_others(descriptor):
    boards = [Board(descriptor, slot) for slot in range(3)]
    assert boards[0].fewest_elsewhere() == ABSENT
    boards[0].write(1)
    boards[1].write(5)
    assert [board.fewest_elsewhere() for board in boards] == [5, 1, 1]


def test_a_worker_that_is_gone_is_waited_for_by_nobody(descriptor):
    first, second = Board(descriptor, 0), Board(descriptor, 1)
    second.write(0)
    assert first.fewest_elsewhere() == 0
    clear_slot(descriptor, 1)
    assert first.fewest_elsewhere() == ABSENT


def test_a_worker_alone_has_nobody_to_wait_for():
    descriptor = create_board(1)
    assert Board(descriptor, 0).fewest_elsewhere() == ABSENT
    os.close(descriptor)
