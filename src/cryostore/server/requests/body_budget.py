"""The memory budget for request bodies: how many bytes of bodies one worker may hold at once.

First come, first served: small bodies cannot overtake a large one for ever. Waiting is bounded, and a waiting request
holds nothing, so waiting cannot deadlock. Belongs to one event loop; not thread safe.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from cryostore.model.errors import ThrottlingException


class BodyBudget:
    """A budget of `bytes_max` bytes. A request for more than the whole budget gets the whole budget."""

    def __init__(self, bytes_max: int, *, wait_seconds_max: float) -> None:
        self.bytes_max = bytes_max
        self.free_bytes = bytes_max
        self._wait_seconds_max = wait_seconds_max
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, wanted_bytes: int) -> int:
        """Wait for a turn and take the bytes; returns how many to give back with `release`.

        Raises ThrottlingException if the turn does not come in time.
        """
        granted = min(wanted_bytes, self.bytes_max)
        if self._waiting or self.free_bytes < granted:
            await self._wait(granted)
        else:
            self.free_bytes -= granted
        return granted

    def take(self, more_bytes: int) -> None:
        """Count bytes that are in memory already, without waiting and beyond the budget if need be.

        Later requests wait longer for it.
        """
        self.free_bytes -= more_bytes

    def release(self, granted_bytes: int) -> None:
        """Give bytes back, and grant them to the requests next in line."""
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
                self.release(granted)  # the turn came at the moment when the wait ended
            else:
                with contextlib.suppress(ValueError):  # a release meanwhile has dropped it already
                    self._waiting.remove(entry)
                self._grant()  # smaller requests behind this one may fit
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
