"""Lookup of secrets: misses are cached, look-ups are limited, and known keys bypass the limits."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cryostore.model.errors import ThrottlingException
from cryostore.server.requests.access_keys import MISS_SECONDS, SecretLookup
from cryostore.server.thread_pool import ThreadPool


class Secrets:
    """One access key; look-ups wait for `go_on`."""

    def __init__(self):
        self.asked = []
        self.fresh = False
        self.go_on = threading.Event()
        self.go_on.set()

    def known(self, access_key_id):
        return "secret" if self.fresh and access_key_id == "mine" else None

    def secret(self, access_key_id):
        self.asked.append(access_key_id)
        assert threading.current_thread().name.startswith("pool")
        self.go_on.wait(20)
        return "secret" if access_key_id == "mine" else None


@pytest.fixture
def pool():
    pool = ThreadPool(8)
    yield pool
    pool.close(wait_seconds_max=10)


def test_a_miss_is_cached_for_a_short_time(pool):
    async def scenario():
        now = [0.0]
        secrets = Secrets()
        lookup = SecretLookup(secrets, pool, now=lambda: now[0])
        for _ in range(3):
            assert await lookup.secret("other", "here") is None
        assert secrets.asked == ["other"]
        now[0] = MISS_SECONDS
        assert await lookup.secret("other", "here") is None
        assert secrets.asked == ["other"] * 2
        assert await lookup.secret("x" * 129, "here") is None
        assert len(secrets.asked) == 2
        secrets.fresh = True
        assert await lookup.secret("mine", "here") == "secret"
        assert len(secrets.asked) == 2

    asyncio.run(scenario())


def test_the_number_of_cached_misses_is_limited(pool):
    async def scenario():
        lookup = SecretLookup(Secrets(), pool, misses_max=3)
        for number in range(10):
            await lookup.secret(f"other-{number}", "here")
        assert list(lookup._misses) == ["other-7", "other-8", "other-9"]

    asyncio.run(scenario())


def test_invented_keys_do_not_delay_a_known_one(pool):
    async def scenario():
        secrets = Secrets()
        lookup = SecretLookup(secrets, pool, waiting_of_address_max=5)
        assert await lookup.secret("mine", "here") == "secret"
        secrets.go_on.clear()
        flood = [asyncio.create_task(lookup.secret(f"invented-{n}", "here")) for n in range(20)]
        while len(refused := [task for task in flood if task.done()]) < 15:  # noqa: ASYNC110 - tasks end by themselves
            await asyncio.sleep(0)  # the lookups that were accepted wait for `go_on`
        assert len(refused) == 15
        assert all(isinstance(task.exception(), ThrottlingException) for task in refused)
        mine = asyncio.create_task(lookup.secret("mine", "here"))
        elsewhere = asyncio.create_task(lookup.secret("mine-too", "there"))
        while secrets.asked.count("mine") < 2:  # noqa: ASYNC110 - a thread of the pool, beside those that wait, asks
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in flood if task not in refused)
        secrets.go_on.set()
        assert await mine == "secret"
        assert await elsewhere is None
        await asyncio.gather(*flood, return_exceptions=True)
        assert lookup._waiting.total() == 0

    asyncio.run(scenario())
