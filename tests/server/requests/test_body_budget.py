"""The memory budget: turns, limits, and no byte lost when a wait ends early."""

from __future__ import annotations

import asyncio

import pytest

from cryostore.model.errors import ThrottlingException
from cryostore.server.requests.body_budget import BodyBudget
from support.virtual_time import run_in_virtual_time


def test_bytes_are_taken_and_given_back():
    async def scenario():
        budget = BodyBudget(100, wait_seconds_max=10)
        assert await budget.acquire(60) == 60
        assert await budget.acquire(40) == 40
        assert budget.free_bytes == 0
        budget.release(60)
        budget.release(40)
        assert budget.free_bytes == 100

    run_in_virtual_time(scenario())


def test_more_than_there_is_means_all_there_is():
    async def scenario():
        budget = BodyBudget(100, wait_seconds_max=10)
        assert await budget.acquire(101) == 100
        budget.release(100)
        assert budget.free_bytes == 100

    run_in_virtual_time(scenario())


def test_a_large_request_is_not_overtaken_by_small_ones():
    async def scenario():
        order = []
        budget = BodyBudget(100, wait_seconds_max=10)

        async def wish(name, wanted):
            await budget.acquire(wanted)
            order.append(name)

        await wish("first", 60)
        waiting = [asyncio.create_task(wish("large", 80)), asyncio.create_task(wish("small", 10))]
        await asyncio.sleep(0)
        assert order == ["first"]
        budget.release(60)
        await asyncio.gather(*waiting)
        assert order == ["first", "large", "small"]
        assert budget.free_bytes == 10

    run_in_virtual_time(scenario())


def test_waiting_ends_with_throttling_and_lets_those_behind_go_on():
    async def scenario():
        budget = BodyBudget(100, wait_seconds_max=0.01)
        await budget.acquire(60)
        large = asyncio.create_task(budget.acquire(80))
        await asyncio.sleep(0)
        budget._wait_seconds_max = 10
        small = asyncio.create_task(budget.acquire(10))
        with pytest.raises(ThrottlingException):
            await large
        assert await small == 10
        assert budget.free_bytes == 30

    run_in_virtual_time(scenario())


@pytest.mark.parametrize("granted_first", [False, True])
def test_a_wait_that_is_cancelled_costs_nothing(granted_first):
    async def scenario():
        budget = BodyBudget(100, wait_seconds_max=10)
        await budget.acquire(100)
        waiting = asyncio.create_task(budget.acquire(50))
        await asyncio.sleep(0)
        if granted_first:
            budget.release(100)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        if not granted_first:
            budget.release(100)
        assert budget.free_bytes == 100

    run_in_virtual_time(scenario())


def test_bytes_in_memory_count_even_beyond_the_budget():
    async def scenario():
        budget = BodyBudget(100, wait_seconds_max=10)
        budget.take(150)
        waiting = asyncio.create_task(budget.acquire(10))
        await asyncio.sleep(0)
        budget.release(50)
        await asyncio.sleep(0)
        assert not waiting.done()
        budget.release(100)
        assert await waiting == 10

    run_in_virtual_time(scenario())


def test_all_waits_may_time_out_at_once():
    async def scenario():
        budget = BodyBudget(100, wait_seconds_max=0.01)
        await budget.acquire(60)
        waits = [budget.acquire(80), budget.acquire(90), budget.acquire(100)]
        refused = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(one) for one in refused] == [ThrottlingException] * 3
        budget.release(60)
        assert budget.free_bytes == 100

    run_in_virtual_time(scenario())
