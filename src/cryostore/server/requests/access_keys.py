"""Lookup of access keys' secrets for the event loop: in memory at once, otherwise in the thread pool.

Anybody can invent access keys. So unknown keys are looked up a few at a time, and a key that does not exist is
remembered for a moment. A key that was found once bypasses these limits.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from time import monotonic

from cryostore.model.errors import ThrottlingException
from cryostore.server.backend import AccessKeys
from cryostore.server.thread_pool import ThreadPool

ACCESS_KEY_CHARACTERS_MAX = 128
"""The longest access key that exists."""
MISS_SECONDS = 5.0
MISSES_MAX = 10_000
LOOKUPS_MAX = 4
WAITING_MAX = 256
WAITING_OF_ADDRESS_MAX = 64


class SecretLookup:
    """Looks up secrets for one event loop."""

    def __init__(
        self,
        access_keys: AccessKeys,
        pool: ThreadPool,
        *,
        now: Callable[[], float] = monotonic,
        misses_max: int = MISSES_MAX,
        waiting_of_address_max: int = WAITING_OF_ADDRESS_MAX,
    ) -> None:
        self._misses_max = misses_max
        self._waiting_of_address_max = waiting_of_address_max
        self._access_keys = access_keys
        self._pool = pool
        self._now = now
        self._found: set[str] = set()
        self._misses: dict[str, float] = {}
        self._lookups: dict[str, asyncio.Task[str | None]] = {}
        self._lookup_slots = asyncio.Semaphore(LOOKUPS_MAX)
        self._waiting: Counter[str] = Counter()

    async def secret(self, access_key_id: str, address: str) -> str | None:
        """Return the secret of an enabled access key; None if the key is unknown or disabled.

        `address` is the client's, for a fair share of the lookups. Raises ThrottlingException.
        """
        if len(access_key_id) > ACCESS_KEY_CHARACTERS_MAX:
            return None
        secret = self._access_keys.known(access_key_id)
        if secret is not None:
            return secret
        if self._now() < self._misses.get(access_key_id, 0.0):
            return None
        task = self._lookups.get(access_key_id)
        if task is None:
            task = self._lookups[access_key_id] = asyncio.ensure_future(self._look_up(access_key_id, address))
            task.add_done_callback(lambda _: self._lookups.pop(access_key_id, None))
        return await asyncio.shield(task)

    async def _look_up(self, access_key_id: str, address: str) -> str | None:
        if access_key_id in self._found:
            secret = await self._pool.run(self._access_keys.secret, access_key_id)
        else:
            secret = await self._look_up_unknown(access_key_id, address)
        if secret is None:
            self._found.discard(access_key_id)
            self._remember_miss(access_key_id)
        else:
            self._found.add(access_key_id)
        return secret

    async def _look_up_unknown(self, access_key_id: str, address: str) -> str | None:
        if self._waiting.total() >= WAITING_MAX or self._waiting[address] >= self._waiting_of_address_max:
            raise ThrottlingException("too many unknown access keys are being looked up; retry later")
        self._waiting[address] += 1
        try:
            async with self._lookup_slots:
                return await self._pool.run(self._access_keys.secret, access_key_id)
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]

    def _remember_miss(self, access_key_id: str) -> None:
        self._misses.pop(access_key_id, None)
        if len(self._misses) >= self._misses_max:
            del self._misses[next(iter(self._misses))]
        self._misses[access_key_id] = self._now() + MISS_SECONDS
