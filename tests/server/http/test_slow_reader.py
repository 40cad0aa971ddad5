"""Detection of slow readers, in virtual time: a client that reads something in each period is never dropped."""

from __future__ import annotations

import asyncio

import pytest

from cryostore.server.http.exchange import RECHECK_SECONDS, SlowReaderWatch
from support.virtual_time import run_in_virtual_time

COVERS = ("server/http/exchange.py",)

IDLE_SECONDS = 10.0


class Transport(asyncio.WriteTransport):
    """A transport with a number of bytes that wait for the client."""

    def __init__(self, waiting_bytes):
        super().__init__()
        self.waiting_bytes = waiting_bytes

    def get_write_buffer_size(self):
        return self.waiting_bytes


class Watched:
    """A watched client, and the time at which it was dropped."""

    def __init__(self, waiting_bytes=100):
        self.loop = asyncio.get_running_loop()
        self.transport = Transport(waiting_bytes)
        self.given_up_at = None
        self.watch = SlowReaderWatch(self.loop, IDLE_SECONDS)
        self.watch.start(self.transport, self._give_up)

    def _give_up(self):
        self.given_up_at = self.loop.time()


def test_a_client_that_reads_nothing_is_dropped():
    async def scenario():
        watched = Watched()
        await asyncio.sleep(IDLE_SECONDS)
        assert watched.given_up_at is None
        await asyncio.sleep(2 * RECHECK_SECONDS)
        assert watched.given_up_at == pytest.approx(IDLE_SECONDS + RECHECK_SECONDS)

    run_in_virtual_time(scenario())


def test_a_client_that_reads_a_little_in_each_period_is_kept():
    async def scenario():
        watched = Watched()
        for _ in range(10):
            await asyncio.sleep(IDLE_SECONDS)
            watched.transport.waiting_bytes -= 1
        assert watched.given_up_at is None
        await asyncio.sleep(3 * IDLE_SECONDS)
        assert watched.given_up_at is not None

    run_in_virtual_time(scenario())


def test_progress_that_shows_after_the_period_counts():
    """After a standstill, the timer of the period runs before the event loop writes to the socket."""

    async def scenario():
        watched = Watched()
        await asyncio.sleep(IDLE_SECONDS + RECHECK_SECONDS / 2)
        watched.transport.waiting_bytes -= 1
        await asyncio.sleep(IDLE_SECONDS - RECHECK_SECONDS)
        assert watched.given_up_at is None

    run_in_virtual_time(scenario())


def test_a_writer_waits_until_the_watch_ends():
    async def scenario():
        watched = Watched()
        writer = asyncio.create_task(watched.watch.wait())
        await asyncio.sleep(1)
        assert not writer.done()
        watched.watch.stop()
        await writer
        await watched.watch.wait()
        await asyncio.sleep(10 * IDLE_SECONDS)
        assert watched.given_up_at is None

    run_in_virtual_time(scenario())
