"""One exchange without a network: gathering a body, the sender's pace, and writing an answer."""

from __future__ import annotations

import asyncio

import pytest

from cryostore.options.configuration import ConnectionSettings
from cryostore.server.http.exchange import (
    CONTINUE,
    JOINED_BYTES_MAX,
    PIECE_BYTES,
    READ_AHEAD_BYTES,
    RECHECK_SECONDS,
    Exchange,
)
from support.virtual_time import run_in_virtual_time

SETTINGS = ConnectionSettings(body_idle_seconds_max=1000, body_progress_bytes_min=10, drain_bytes_max=100)


class Wire:
    """A connection as an exchange sees it."""

    def __init__(self):
        self.settings = SETTINGS
        self.closing = False
        self.reading = True
        self.sent = []
        self.finished = None
        self.aborted = False

    @property
    def goes_on(self):
        return not self.closing

    @property
    def loop(self):
        return asyncio.get_running_loop()

    def write(self, data):
        self.sent.append(bytes(data))

    async def written(self):
        pass

    def finish(self, exchange, *, keep_alive):
        self.finished = keep_alive

    def abort(self):
        self.aborted = True

    def default_lines(self):
        return [b"date: today\r\n"]

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


def exchange_on(wire, declared_bytes=0, *, expects_continue=False, keep_alive=True, method="PUT"):
    return Exchange(
        wire,
        {"method": method},
        declared_bytes=declared_bytes,
        expects_continue=expects_continue,
        keep_alive=keep_alive,
    )


def scenario(coroutine_function):
    """Run a test that is a coroutine function."""

    def test():
        asyncio.run(coroutine_function())

    test.__doc__ = coroutine_function.__doc__
    return test


@scenario
async def test_a_body_that_has_arrived_whole_is_not_copied():
    exchange = exchange_on(Wire(), 3)
    data = b"abc"
    exchange.feed(data)
    exchange.complete()
    message = await exchange.receive()
    assert message == {"type": "http.request", "body": b"abc", "more_body": False}
    assert message["body"] is data


@scenario
async def test_a_declared_body_comes_as_one_message():
    exchange = exchange_on(Wire(), 3 * PIECE_BYTES)
    waiting = asyncio.create_task(exchange.receive())
    await asyncio.sleep(0)
    for _ in range(3):
        exchange.feed(b"a" * PIECE_BYTES)
        await asyncio.sleep(0)
        assert not waiting.done()
    exchange.complete()
    message = await waiting
    assert (len(message["body"]), message["more_body"]) == (3 * PIECE_BYTES, False)


@scenario
async def test_a_chunked_body_comes_in_pieces():
    exchange = exchange_on(Wire(), None)
    waiting = asyncio.create_task(exchange.receive())
    await asyncio.sleep(0)
    exchange.feed(b"a" * PIECE_BYTES)
    message = await waiting
    assert (len(message["body"]), message["more_body"]) == (PIECE_BYTES, True)
    exchange.feed(b"b")
    exchange.complete()
    assert await exchange.receive() == {"type": "http.request", "body": b"b", "more_body": False}


@scenario
async def test_a_limited_number_of_bytes_is_read_before_the_application_asks():
    wire = Wire()
    exchange = exchange_on(wire, 10 * READ_AHEAD_BYTES)
    exchange.feed(b"a" * READ_AHEAD_BYTES)
    assert wire.reading
    exchange.feed(b"a")
    assert not wire.reading
    waiting = asyncio.create_task(exchange.receive())
    await asyncio.sleep(0)
    assert wire.reading
    exchange.break_off()
    assert (await waiting)["type"] == "http.disconnect"


def test_a_slow_but_steady_sender_succeeds_and_a_stopped_one_times_out():
    """In virtual time: a sender must make progress in each period."""

    async def run():
        wire = Wire()
        exchange = exchange_on(wire, 1000)
        waiting = asyncio.create_task(exchange.receive())
        for _ in range(5):
            await asyncio.sleep(SETTINGS.body_idle_seconds_max - 1)
            exchange.feed(b"a" * SETTINGS.body_progress_bytes_min)
            await asyncio.sleep(1)
            assert not exchange.broken
        exchange.feed(b"a" * (SETTINGS.body_progress_bytes_min - 1))
        await asyncio.sleep(SETTINGS.body_idle_seconds_max)
        assert not exchange.broken  # the event loop reads the socket once more before the sender times out
        await asyncio.sleep(2 * RECHECK_SECONDS)
        assert exchange.broken
        assert (await waiting)["type"] == "http.disconnect"

    run_in_virtual_time(run())


def test_after_a_standstill_of_the_server_a_sender_gets_one_more_period():
    """The machine was frozen between the head of a request and its body. The sender gets no further period."""

    async def run():
        wire = Wire()
        exchange = exchange_on(wire, 100)
        waiting = asyncio.create_task(exchange.receive())
        await asyncio.sleep(1)
        wire.loop.now += 2 * SETTINGS.body_idle_seconds_max  # the process stands still
        await asyncio.sleep(SETTINGS.body_idle_seconds_max - 1)
        assert not exchange.broken
        await asyncio.sleep(1 + 2 * RECHECK_SECONDS)
        assert exchange.broken
        assert (await waiting)["type"] == "http.disconnect"

    run_in_virtual_time(run())


@scenario
async def test_100_continue_is_sent_once_and_only_to_a_client_that_expects_it():
    for expects in (True, False):
        wire = Wire()
        exchange = exchange_on(wire, None, expects_continue=expects)
        exchange.feed(b"a" * PIECE_BYTES)
        await exchange.receive()
        exchange.feed(b"a" * PIECE_BYTES)
        await exchange.receive()
        assert wire.sent == ([CONTINUE] if expects else [])


async def answer(exchange, body=b"", headers=(), status=200):
    await exchange.send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await exchange.send({"type": "http.response.body", "body": body})


@scenario
async def test_an_answer_is_written():
    wire = Wire()
    exchange = exchange_on(wire)
    exchange.complete()
    await answer(exchange, b"{}", [(b"content-length", b"2")])
    assert wire.sent == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\n\r\n{}"]
    assert wire.finished is True


@scenario
async def test_a_large_answer_is_written_without_a_copy():
    wire = Wire()
    exchange = exchange_on(wire)
    exchange.complete()
    await answer(exchange, b"a" * (JOINED_BYTES_MAX + 1))
    assert [len(piece) for piece in wire.sent][1:] == [JOINED_BYTES_MAX + 1]


@scenario
async def test_an_answer_to_head_has_no_body():
    wire = Wire()
    exchange = exchange_on(wire, method="HEAD")
    exchange.complete()
    await answer(exchange, b"{}", [(b"content-length", b"2")])
    assert wire.sent == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\n\r\n"]


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
def test_a_header_value_cannot_inject_a_header(value):
    async def run():
        wire = Wire()
        exchange = exchange_on(wire)
        exchange.complete()
        with pytest.raises(ValueError, match="line break"):
            await answer(exchange, b"", [(b"x-amz-metadata-string", value)])
        assert wire.sent == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("made", "fed", "done", "kept"),
    [
        ({"declared_bytes": 10}, 10, True, True),
        ({"declared_bytes": 110}, 10, False, True),
        ({"declared_bytes": 111}, 10, False, False),
        ({"declared_bytes": None}, 10, False, False),
        ({"declared_bytes": 10, "expects_continue": True}, 0, False, False),
        ({"declared_bytes": 10, "keep_alive": False}, 10, True, False),
    ],
)
def test_when_a_connection_outlives_an_answer(made, fed, done, kept):
    async def run():
        wire = Wire()
        exchange = exchange_on(wire, **made)
        exchange.feed(b"a" * fed)
        if done:
            exchange.complete()
        await answer(exchange)
        assert wire.finished is kept
        assert (b"connection: close" in wire.sent[-1]) is not kept
        exchange.feed(b"b" * 1000)
        assert exchange._body == b""

    asyncio.run(run())


@scenario
async def test_a_server_that_stops_announces_the_close():
    wire = Wire()
    exchange = exchange_on(wire)
    exchange.complete()
    wire.closing = True
    await answer(exchange)
    assert wire.finished is False


@scenario
async def test_an_answer_has_one_body():
    exchange = exchange_on(Wire())
    exchange.complete()
    await answer(exchange)
    with pytest.raises(RuntimeError):
        await exchange.send({"type": "http.response.body", "body": b""})


@scenario
async def test_an_application_that_fails_closes_the_connection():
    async def silent(scope, receive, send):
        pass

    async def fails(scope, receive, send):
        raise RuntimeError("broken")

    wire = Wire()
    await exchange_on(wire).run(silent)
    assert wire.aborted
    wire = Wire()
    with pytest.raises(RuntimeError):
        await exchange_on(wire).run(fails)
    assert wire.aborted
