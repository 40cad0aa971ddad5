"""The memory budget: how many bytes of bodies may be held at once in one worker.

First come, first served: a large body cannot be overtaken for ever by small ones. Waiting is bounded; whoever waits
holds nothing, so waiting cannot deadlock. Belongs to one event loop and is not thread safe.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from cryostore.model.errors import ThrottlingException


class BodyBudget:
    """`bytes_max` bytes to share out. A wish for more than all of it is granted all of it."""

    def __init__(self, bytes_max: int, *, wait_seconds_max: float) -> None:
        self.bytes_max = bytes_max
        self.free_bytes = bytes_max
        self._wait_seconds_max = wait_seconds_max
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, wanted_bytes: int) -> int:
        """Wait for a turn and take the bytes; answers how many to give back with `release`.

        Raises ThrottlingException when the turn did not come in time.
        """
        granted = min(wanted_bytes, self.bytes_max)
        if self._waiting or self.free_bytes < granted:
            await self._wait(granted)
        else:
            self.free_bytes -= granted
        return granted

    def take(self, more_bytes: int) -> None:
        """Take bytes that are in memory already, without waiting, even beyond the budget: later comers wait longer."""
        self.free_bytes -= more_bytes

    def release(self, granted_bytes: int) -> None:
        """Give bytes back and let those next in line have them."""
        self.free_bytes += granted_bytes
        self._grant()

    async def _wait(self, granted: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (granted, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release(granted)  # the turn came at the very moment the wait ended
            else:
                with contextlib.suppress(ValueError):  # passed over already, by whoever gave bytes back meanwhile
                    self._waiting.remove(entry)
                self._grant()  # smaller wishes behind this one may fit
            if isinstance(error, TimeoutError):
                raise ThrottlingException("too many bytes are being received at once; retry later") from None
            raise

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free_bytes:
            granted, turn = self._waiting.popleft()
            if turn.cancelled():
                continue
            self.free_bytes -= granted
            turn.set_result(None)
