"""The body of a request: its declared length and limit, refused framing, and the memory of senders."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time

import pytest

from cryostore.core.limits import KIB, MIB
from cryostore.model.errors import (
    IllegalArgumentException,
    InvalidParameterValueException,
    NotReadableInputStreamException,
    ThrottlingException,
)
from cryostore.options.configuration import ConnectionSettings
from cryostore.server.requests import body
from cryostore.server.requests.body import (
    STEP_BYTES_MIN,
    BodyBudget,
    TimeLimit,
    UnverifiedBodies,
    sender_group,
)
from cryostore.wire.message import Request
from support.processes.fake_process import fake_server
from support.requests.raw_http import head_bytes, put_object, to_bytes
from support.virtual_time import run_in_virtual_time

HERE = ("127.0.0.1", 1)
THERE = ("192.0.2.7", 2)


def with_headers(*headers):
    return Request("PUT", "/", "", list(headers))


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ([], 0),
        ([("content-length", "0")], 0),
        ([("content-length", "12")], 12),
        ([("transfer-encoding", "chunked")], None),
        ([("transfer-encoding", " Chunked ")], None),
        ([("content-length", "12"), ("content-encoding", "identity")], 12),
        ([("content-length", "12"), ("content-encoding", "")], 12),
    ],
)
def test_the_declared_length_of_a_body(headers, length):
    assert body.declared_bytes(with_headers(*headers), "backup-storage") == length


@pytest.mark.parametrize(
    "header",
    [
        ("transfer-encoding", "gzip, chunked"),
        ("content-encoding", "gzip"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
    ],
)
def test_an_encoded_or_streamed_body_is_refused(header):
    with pytest.raises(IllegalArgumentException):
        body.declared_bytes(with_headers(header), "backup-storage")
    with pytest.raises(InvalidParameterValueException):
        body.declared_bytes(with_headers(header), "backup")


def read(*messages, bytes_max=10):
    coming = iter(messages)

    async def receive():
        return next(coming)

    return asyncio.run(body.read(receive, "backup-storage", bytes_max))


def piece(data, more):
    return {"type": "http.request", "body": data, "more_body": more}


def test_pieces_become_one_body():
    assert read(piece(b"abc", more=False)) == b"abc"
    assert read(piece(b"abc", more=True), piece(b"", more=True), piece(b"def", more=True), piece(b"g", more=False)) == (
        b"abcdefg"
    )
    assert read({"type": "http.request"}) == b""


def test_the_limit_of_a_body_is_exact_to_the_byte():
    assert read(piece(b"a" * 9, more=True), piece(b"b", more=False)) == b"a" * 9 + b"b"
    with pytest.raises(IllegalArgumentException):
        read(piece(b"a" * 9, more=True), piece(b"bb", more=False))


def test_a_body_that_breaks_off_is_not_returned():
    with pytest.raises(NotReadableInputStreamException):
        read(piece(b"abc", more=True), {"type": "http.disconnect"})


def test_bytes_are_acquired_and_released():
    async def scenario():
        budget = BodyBudget(100, wait_seconds_max=10)
        assert await budget.acquire(60) == 60
        assert await budget.acquire(40) == 40
        assert budget.free_bytes == 0
        budget.release(60)
        budget.release(40)
        assert budget.free_bytes == 100

    run_in_virtual_time(scenario())


def test_a_request_for_more_than_the_budget_gets_the_whole_budget():
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


def test_a_wait_that_times_out_throttles_and_lets_later_requests_continue():
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
def test_a_cancelled_wait_leaves_the_budget_unchanged(granted_first):
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


def test_bytes_already_in_memory_count_beyond_the_budget():
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


def pieces(*sizes):
    """A receiver of a body in pieces of these sizes."""
    rest = list(sizes)

    async def receive():
        size = rest.pop(0)
        return {"type": "http.request", "body": b"a" * size, "more_body": bool(rest)}

    return receive


async def never():
    await asyncio.Event().wait()


def test_memory_follows_the_bytes_received():
    async def scenario():
        budget = UnverifiedBodies(8 * MIB)
        reservation = budget.reserve(HERE)
        reading = asyncio.create_task(reservation.read(never, "backup", 4 * MIB, 4 * MIB))
        await asyncio.sleep(0)
        assert budget.held_bytes == STEP_BYTES_MIN  # however many it declares
        reading.cancel()
        reservation.release()
        reservation = budget.reserve(HERE)
        data = await reservation.read(pieces(10_000, 90_000, MIB), "backup", 4 * MIB, None)
        assert len(data) == 100_000 + MIB <= budget.held_bytes <= 3 * len(data)
        reservation.release()
        reservation.release()
        assert budget.held_bytes == 0

    run_in_virtual_time(scenario())


def test_an_address_has_a_share_and_the_first_sender_continues():
    async def scenario():
        budget = UnverifiedBodies(100, wait_seconds_max=0.01)
        first, second, third = budget.reserve(HERE), budget.reserve(HERE), budget.reserve(THERE)
        await budget.grow(first, 20)
        await budget.grow(second, 30)
        with pytest.raises(ThrottlingException):
            await budget.grow(second, 1)  # the address has used its half
        await budget.grow(third, 50)
        with pytest.raises(ThrottlingException):
            await budget.grow(third, 1)
        await budget.grow(first, 1000)  # the first sender gets the memory that it needs, ends and releases it
        first.release()
        await budget.grow(second, 1000)
        second.release()
        third.release()
        assert budget.held_bytes == 0

    run_in_virtual_time(scenario())


def test_a_waiting_sender_gets_its_turn_when_another_ends():
    async def scenario():
        budget = UnverifiedBodies(100, wait_seconds_max=10)
        first, second = budget.reserve(HERE), budget.reserve(THERE)
        await budget.grow(first, 90)
        waiting = asyncio.create_task(budget.grow(second, 40))
        await asyncio.sleep(0)
        assert not waiting.done()
        first.release()
        await waiting
        assert budget.held_bytes == second.held_bytes == 40
        second.release()

    run_in_virtual_time(scenario())


def test_a_slow_unverified_sender_times_out():
    async def scenario():
        budget = UnverifiedBodies(time_limit=TimeLimit(seconds_max=0.01))
        reservation = budget.reserve(HERE)
        with pytest.raises(NotReadableInputStreamException, match="slowly"):
            await reservation.read(never, "backup", MIB, None)
        reservation.release()
        assert budget.held_bytes == 0

    run_in_virtual_time(scenario())


def test_a_sender_of_more_bytes_may_take_longer():
    time_limit = TimeLimit(seconds_max=10, bytes_per_second_min=MIB)
    assert time_limit.seconds(0) == 10
    assert time_limit.seconds(64 * MIB) == 74


def test_an_ipv6_network_counts_as_one_address():
    assert sender_group(("192.0.2.1", 5)) == sender_group(("192.0.2.1", 6)) != sender_group(("192.0.2.2", 5))
    assert (
        sender_group(("2001:db8::1", 5, 0, 0))
        == sender_group(("2001:db8::2", 5, 0, 0))
        != sender_group(("2001:db8:0:1::1", 5, 0, 0))
    )
    assert sender_group(("::ffff:192.0.2.1", 5, 0, 0)) != sender_group(("::ffff:192.0.2.2", 5, 0, 0))
    assert sender_group(None) == sender_group("") == ""


def forged(name, size="chunked"):
    """The head of a request with a genuine key's id, a wrong signature, and a body that follows."""
    request = put_object(name, payload_hash="0" * 64, send_hash=False)
    framing = ("transfer-encoding", "chunked") if size == "chunked" else ("content-length", str(size))
    return head_bytes(request, framing)


@pytest.mark.parametrize("size", ["chunked", 32 * MIB])
def test_known_callers_do_not_wait_for_unknown_ones(tmp_path, size):
    """Under load: many forged requests that keep the memory they get, with a declared or a chunked body."""
    patient = ConnectionSettings(unverified_seconds_max=60)
    with fake_server(tmp_path, connection=patient) as server:
        attackers = [server.connect() for _ in range(60)]
        for number, attacker in enumerate(attackers):
            attacker.send(forged(f"forged-{number}", size))
            if size != "chunked":
                attacker.send(bytes(256 * KIB))
        waits = []

        def work(thread):
            for number in range(10):
                name, body = f"genuine-{thread}-{number}", bytes(MIB)
                how = {"payload_hash": hashlib.sha256(body).hexdigest()} if number % 2 else {}
                began = time.monotonic()
                answer = server.exchange(to_bytes(put_object(name, body, **how)))
                waits.append((answer.status, time.monotonic() - began))

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {status for status, _ in waits} == {200}
        assert len(waits) == 40
        assert max(seconds for _, seconds in waits) < 5
        assert not any("forged" in call for call in server.calls)
        for attacker in attackers:
            attacker.__exit__()


def test_a_body_whose_hash_is_signed_and_not_sent_arrives_whole(server):
    body = bytes(range(256)) * (8 * KIB)
    for many in range(3):
        request = put_object(f"late-{many}", body, payload_hash=hashlib.sha256(body).hexdigest(), send_hash=False)
        assert server.exchange(to_bytes(request)).status == 200
    altered = to_bytes(request)[:-1] + b"x"
    assert server.exchange(altered).error == "InvalidSignatureException"


def test_a_silent_connection_makes_room_for_a_new_one(tmp_path):
    with fake_server(tmp_path, connection=ConnectionSettings(connections_max=3)) as server:
        silent = [server.connect() for _ in range(2)]
        with server.connect() as known:
            known.send(to_bytes(put_object("n")))
            assert known.answer().status == 200
            deadline = time.monotonic() + 10
            # until the silent connections are old enough
            while server.exchange(to_bytes(put_object("n", b"abc"))).status != 200:
                assert time.monotonic() < deadline
            known.send(to_bytes(put_object("n")))
            assert known.answer().status == 200
        assert silent[0].socket.recv(1) == b""
        for connection in silent:
            connection.__exit__()
