"""The thread pool: results, errors, concurrency, and shutdown."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from cryostore.server.thread_pool import ThreadPool


@pytest.fixture
def pool():
    pool = ThreadPool(4)
    yield pool
    pool.close(wait_seconds_max=10)


def test_the_result_or_the_error_of_a_call_is_returned(pool):
    async def scenario():
        assert await pool.run(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await pool.run(divmod, 7, 0)

    asyncio.run(scenario())


def test_no_call_is_lost_among_many(pool):
    async def scenario():
        results = await asyncio.gather(*(pool.run(lambda n=n: n * n) for n in range(5000)))
        assert results == [n * n for n in range(5000)]

    asyncio.run(scenario())


def test_as_many_calls_run_at_once_as_there_are_threads(pool):
    async def scenario():
        together = threading.Barrier(4, timeout=10)
        await asyncio.gather(*(pool.run(together.wait) for _ in range(4)))

    asyncio.run(scenario())


def test_a_cancelled_wait_does_not_affect_other_calls(pool):
    async def scenario():
        go = threading.Event()
        waits = [asyncio.create_task(pool.run(go.wait, 10)) for _ in range(2)]
        await asyncio.sleep(0)
        waits[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits[0]
        go.set()
        assert await waits[1]

    asyncio.run(scenario())


def test_an_idle_thread_keeps_nothing_alive():
    class Body:
        pass

    async def scenario(pool):
        body = Body()
        gone = weakref.ref(body)
        await pool.run(id, body)
        del body
        await pool.run(int)  # by the only thread, which has dropped the body before it takes this call
        gc.collect()
        assert gone() is None

    pool = ThreadPool(1)
    asyncio.run(scenario(pool))
    pool.close(wait_seconds_max=10)


def test_close_waits_a_limited_time_for_running_calls():
    pool = ThreadPool(1)
    go = threading.Event()

    async def scenario():
        wait = asyncio.create_task(pool.run(go.wait, 10))
        await asyncio.sleep(0)
        wait.cancel()

    asyncio.run(scenario())
    assert not pool.close(wait_seconds_max=0.01)
    go.set()
    assert pool.close(wait_seconds_max=10)
