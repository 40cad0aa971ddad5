"""Long bodies, which bypass the parser: how they start, end, fail and time out."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostore.options.configuration import ConnectionSettings
from cryostore.server.http.connection import INTAKE_BYTES, Connection
from cryostore.server.http.exchange import READ_AHEAD_BYTES
from cryostore.server.http.shared_state import SharedState
from support.requests.raw_http import head_bytes, put_object, signed, to_bytes
from support.virtual_time import run_in_virtual_time

HEALTH = b"GET /-/health HTTP/1.1\r\nhost: server\r\n\r\n"
EDGES = sorted({edge + more for edge in (READ_AHEAD_BYTES, 2 * INTAKE_BYTES, 4 * INTAKE_BYTES) for more in (-1, 0, 1)})


def body_of(length: int) -> bytes:
    """Bytes without repetition, so that a misplaced piece is found."""
    return b"".join(number.to_bytes(4, "big") for number in range(-(-length // 4)))[:length]


# --- a real server ----------------------------------------------------------------------------------------------------


def stored(connection, name: str) -> bytes:
    """The body as the server received it."""
    connection.send(to_bytes(signed("GET", f"/restore-jobs/job-1/chunk/{name}")))
    return connection.answer().body


@pytest.mark.parametrize("length", EDGES)
def test_a_body_near_a_size_limit_arrives_whole(server, length):
    body = body_of(length)
    with server.connect() as connection:
        connection.send(to_bytes(put_object("edge", body, payload_hash=None)))
        assert connection.answer().status == 200
        assert stored(connection, "edge") == body


def test_requests_behind_a_long_body_are_answered_in_order(server):
    bodies = [body_of(length) for length in (1_000_000, 10, 500_000, 0, 70_000, 3_000_000)]
    requests = [to_bytes(put_object(f"behind-{number}", body)) for number, body in enumerate(bodies)]
    with server.connect() as connection:
        connection.send(*requests, HEALTH)
        assert [connection.answer().status for _ in (*requests, HEALTH)] == [200] * 7
        assert [stored(connection, f"behind-{number}") for number in range(6)] == bodies
    assert server.calls == [f"PutObject AKIATEST000000000000 behind-{number}" for number in range(6)]


def test_garbage_behind_a_long_body_does_not_affect_its_answer(server):
    with server.connect() as connection:
        connection.send(to_bytes(put_object("before", body_of(200_000))))
        assert connection.answer().status == 200
        connection.send(b"\0\0\r\n\r\n")
        assert connection.answer().status == 400
        assert connection.ended()


def test_connection_close_is_honoured_after_a_long_body(server):
    with server.connect() as connection:
        connection.send(to_bytes(put_object("last", body_of(200_000)), ("connection", "close")), HEALTH)
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert connection.ended()


def test_raw_bytes_in_a_path_behind_a_long_body_are_served(server):
    with server.connect() as connection:
        connection.send(to_bytes(put_object("plain", body_of(200_000))), to_bytes(put_object("\xc3\xa9", b"abc")))
        assert [connection.answer().status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("sent", [READ_AHEAD_BYTES - 1, 500_000, 999_999])
def test_a_long_body_that_breaks_off_stores_nothing(server, sent):
    name = f"broken-{sent}"
    with server.connect() as connection:
        connection.send(head_bytes(put_object(name), ("content-length", "1000000")), body_of(sent))
    with server.connect() as connection:
        connection.send(head_bytes(put_object(name), ("content-length", "1000000")), body_of(sent))
        connection.end_sending()
        assert connection.answer().error == "NotReadableInputStreamException"
        assert connection.ended()
    assert server.exchange(HEALTH).status == 200
    assert server.calls == []


@pytest.mark.parametrize("sent", [0, 100, 500_000])
def test_a_slow_sender_of_a_long_body_times_out(impatient_server, sent):
    with impatient_server.connect() as connection:
        connection.send(head_bytes(put_object("slow-long"), ("content-length", "1000000")), body_of(sent))
        answer = connection.answer()
        assert (answer.status, answer.error) == (400, "NotReadableInputStreamException")
        assert answer.headers["connection"] == "close"
        assert connection.ended()
    assert impatient_server.calls == []


@pytest.mark.parametrize("length", [READ_AHEAD_BYTES, READ_AHEAD_BYTES + 1, 1_000_000])
def test_100_continue_comes_before_a_long_body(server, length):
    body = body_of(length)
    request = put_object("continued", body, payload_hash=None)
    with server.connect() as connection:
        for _ in range(2):
            connection.send(head_bytes(request, ("content-length", str(length)), ("expect", "100-continue")))
            assert connection.answer().status == 100
            connection.send(body)
            assert connection.answer().status == 200
        assert stored(connection, "continued") == body


# --- one connection without a network ---------------------------------------------------------------------------------


class Transport(asyncio.Transport):
    """The transport of a connection, without a network."""

    def __init__(self):
        super().__init__()
        self.sent = b""
        self.reading = True
        self.closed = False

    def write(self, data):
        self.sent += data

    def write_eof(self):
        pass

    def can_write_eof(self):
        return True

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


class Line:
    """A connection that a test feeds, and the bodies that arrived on it."""

    def __init__(self, application=None, **bounds):
        self.bodies = []
        self.transport = Transport()
        self.connection = Connection(
            ConnectionSettings(**bounds),
            head_bytes_max=1000,
            new_id=lambda: "id",
            intake=memoryview(bytearray(INTAKE_BYTES)),
            config=SimpleNamespace(loaded_app=application or self._take),
            server_state=SharedState(),
            app_state={},
            _loop=asyncio.get_running_loop(),
        )
        self.connection.connection_made(self.transport)

    async def _take(self, scope, receive, send):
        message = await receive()
        self.bodies.append(bytes(message["body"]) if message["type"] == "http.request" else None)
        await answer(send)

    async def feed(self, data, pieces=(), pauses=1):
        """Let `data` arrive in pieces of these sizes, the rest as it fits; the loop runs `pauses` times in between."""
        pieces = iter(pieces)
        while data and not self.transport.closed:
            if self.transport.reading:
                room = self.connection.get_buffer(-1)
                length = min(len(room), len(data), next(pieces, len(data)))
                room[:length] = data[:length]
                self.connection.buffer_updated(length)
                data = data[length:]
            await turns(pauses)
        await turns(5)


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def answer(send, status=200):
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def put(body, length=None):
    return b"PUT / HTTP/1.1\r\nhost: server\r\ncontent-length: %d\r\n\r\n" % (length or len(body)) + body


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.sampled_from((0, 1, *EDGES, 3 * INTAKE_BYTES)), min_size=1, max_size=4),
    pieces=st.lists(st.integers(1, 2 * INTAKE_BYTES), max_size=40),
    pauses=st.integers(1, 4),
)
def test_bodies_are_the_same_however_they_are_cut(lengths, pieces, pauses):
    async def run():
        line = Line()
        bodies = [body_of(length) for length in lengths]
        await line.feed(b"".join(put(body) for body in bodies), pieces, pauses)
        assert line.bodies == bodies
        assert line.transport.sent.count(b"200 OK") == len(lengths)

    asyncio.run(run())


def test_a_long_body_bypasses_the_parser_once_it_is_requested():
    async def run():
        line = Line()
        body = body_of(1_000_000)
        await line.feed(put(body, 1_000_000)[:-900_000])
        assert len(line.connection.get_buffer(-1)) == 900_000
        await line.feed(body[-900_000:])
        assert len(line.connection.get_buffer(-1)) == INTAKE_BYTES
        assert line.bodies == [body]

    asyncio.run(run())


def test_a_body_that_is_read_ahead_goes_through_the_parser():
    async def run():
        line = Line()
        body = body_of(READ_AHEAD_BYTES)
        await line.feed(put(body)[:-1])
        assert len(line.connection.get_buffer(-1)) == INTAKE_BYTES
        await line.feed(body[-1:])
        assert line.bodies == [body]

    asyncio.run(run())


def early(reading):
    """An application that answers once a long body has started to arrive, before it is complete."""

    async def application(_scope, receive, send):
        asking = asyncio.ensure_future(receive())
        await reading.wait()
        asking.cancel()
        await answer(send, 400)

    return application


def test_an_early_answer_in_the_middle_of_a_long_body_is_followed_by_the_next():
    async def run():
        reading = asyncio.Event()
        line = Line(early(reading))
        request = put(body_of(1_000_000))
        await line.feed(request[:500_000])
        assert len(line.connection.get_buffer(-1)) > INTAKE_BYTES
        reading.set()
        await turns(5)
        assert len(line.connection.get_buffer(-1)) == INTAKE_BYTES  # the rest is discarded, not kept
        await line.feed(request[500_000:] + put(b""), pauses=3)
        assert line.transport.sent.count(b"400 Bad Request") == 2
        assert not line.transport.closed

    asyncio.run(run())


def test_an_early_answer_to_a_long_body_closes_the_connection_if_too_much_is_missing():
    async def run():
        reading = asyncio.Event()
        line = Line(early(reading), drain_bytes_max=300_000, linger_bytes_max=300_000)
        request = put(body_of(1_000_000))
        await line.feed(request[:500_000])
        reading.set()
        await turns(5)
        assert b"connection: close" in line.transport.sent
        await line.feed(request[500_000:700_000])
        assert not line.transport.closed
        await line.feed(request[700_000:])
        assert line.transport.closed

    asyncio.run(run())


def test_a_long_body_that_breaks_off_is_never_returned():
    async def run():
        line = Line()
        await line.feed(put(body_of(500_000), 1_000_000))
        line.connection.connection_lost(None)
        await turns(5)
        assert line.bodies == [None]

    asyncio.run(run())


def test_the_rest_of_a_body_that_timed_out_is_discarded():
    async def run():
        line = Line()
        request = put(body_of(1_000_000))
        await line.feed(request[:500_000])
        line.connection._incoming.break_off()  # as the watch for slow senders does
        await line.feed(request[500_000:])
        assert line.bodies == [None]
        assert line.transport.sent.count(b"HTTP/1.1") == 1

    asyncio.run(run())


# --- in virtual time --------------------------------------------------------------------------------------------------

HEAD_SECONDS, BODY_SECONDS = 10.0, 30.0
IN_TIME = 0.1


def test_a_slow_head_times_out():
    """Nothing or a part of it arrived, on a new connection or after an answer."""

    async def run(*before):
        line = Line(head_seconds_max=HEAD_SECONDS, keep_alive_seconds_max=10 * HEAD_SECONDS)
        for data in before:
            await line.feed(data)
        await asyncio.sleep(HEAD_SECONDS - IN_TIME)
        assert not line.transport.closed
        await asyncio.sleep(2 * IN_TIME)
        assert line.transport.closed

    for before in ((), (HEALTH[:20],), (put(b""), HEALTH[:20])):
        run_in_virtual_time(run(*before))


def test_a_head_in_time_is_answered_and_keeps_the_connection():
    async def run():
        line = Line(head_seconds_max=HEAD_SECONDS, keep_alive_seconds_max=10 * HEAD_SECONDS)
        await line.feed(HEALTH[:20])
        await asyncio.sleep(HEAD_SECONDS - IN_TIME)
        await line.feed(HEALTH[20:])
        assert b"200 OK" in line.transport.sent
        await asyncio.sleep(5 * HEAD_SECONDS)
        assert not line.transport.closed
        await asyncio.sleep(6 * HEAD_SECONDS)
        assert line.transport.closed  # the keep-alive time is over

    run_in_virtual_time(run())


@pytest.mark.parametrize("length", [5_000, 1_000_000])
def test_a_slow_body_times_out_and_a_steady_one_arrives(length):
    bounds = {"body_idle_seconds_max": BODY_SECONDS, "body_progress_bytes_min": 1000}
    body = body_of(length)

    async def steady():
        line = Line(**bounds)
        await line.feed(put(body)[:-4000])
        for start in range(-4000, 0, 1000):
            await asyncio.sleep(BODY_SECONDS - IN_TIME)
            await line.feed(body[start : start + 1000 or None])
        assert line.bodies == [body]

    async def slow():
        line = Line(**bounds)
        await line.feed(put(body)[:-4000])
        await asyncio.sleep(BODY_SECONDS)
        await line.feed(body[-4000:-3001])  # one byte too few for the period
        assert line.bodies == []
        await asyncio.sleep(BODY_SECONDS + 1)
        assert line.bodies == [None]

    run_in_virtual_time(steady())
    run_in_virtual_time(slow())


def test_the_wait_for_an_unread_body_that_never_comes_ends():
    async def application(_scope, _receive, send):
        await answer(send, 400)

    async def run():
        line = Line(application, drain_seconds_max=BODY_SECONDS)
        await line.feed(put(body_of(2000))[:-1000])
        assert b"400 Bad Request" in line.transport.sent
        await asyncio.sleep(BODY_SECONDS - IN_TIME)
        assert not line.transport.closed
        await asyncio.sleep(2 * IN_TIME)
        assert line.transport.closed

    run_in_virtual_time(run())
