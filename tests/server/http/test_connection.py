"""Connections over real sockets to a real process: framing, order, limits, garbage."""

from __future__ import annotations

import socket
import struct

import pytest

from support.processes.fake_process import wait_for
from support.requests.raw_http import PUT_OBJECT, RawConnection, chunked, head_bytes, put_object, signed, to_bytes

HEALTH = b"GET /-/health HTTP/1.1\r\nhost: server\r\n\r\n"


def test_health_needs_no_signature(server):
    with server.connect() as connection:
        connection.send(HEALTH, HEALTH.replace(b"GET", b"HEAD"), HEALTH)
        answers = [connection.answer(), connection.answer(head=True), connection.answer()]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [answer.body[:14] for answer in answers] == [b'{"status":"ok"', b"", b'{"status":"ok"']


def test_every_answer_has_a_fresh_request_id_and_does_not_name_the_software(server):
    with server.connect() as connection:
        connection.send(HEALTH.replace(b"\r\n\r\n", b"\r\nx-amzn-requestid: mine\r\n\r\n") * 2)
        connection.send(b"GET /nowhere HTTP/1.1\r\nhost: server\r\n\r\n")
        headers = [connection.answer().headers for _ in range(3)]
    ids = {one["x-amzn-requestid"] for one in headers}
    assert len(ids) == 3
    assert "mine" not in ids
    assert all("server" not in one and "date" in one for one in headers)


def test_pipelined_requests_are_answered_in_order(server):
    with server.connect() as connection:
        requests = [to_bytes(put_object(f"piped-{number}", b"x" * number * 1000)) for number in range(40)]
        connection.send(*requests)
        answers = [connection.answer() for _ in requests]
        connection.send(HEALTH)
        assert connection.answer().status == 200
    assert [answer.status for answer in answers] == [200] * 40
    assert server.calls == [f"PutObject AKIATEST000000000000 piped-{number}" for number in range(40)]


def test_a_request_may_come_byte_by_byte(server):
    with server.connect() as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in to_bytes(put_object("bytewise", b"abc")):
            connection.send(bytes([byte]))
        assert connection.answer().status == 200


def test_a_large_body_arrives_whole(server):
    body = bytes(range(256)) * 16384 * 2
    request = put_object("large", body, payload_hash=None)
    assert server.exchange(to_bytes(request)).status == 200
    answer = server.exchange(to_bytes(signed("GET", "/restore-jobs/job-1/chunk/large")))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    assert answer.body == body


def test_a_chunked_body_arrives_whole_and_its_trailers_are_ignored(server):
    request = put_object("chunked", b"")
    pieces = [b"a" * 10, b"b", b"c" * 300_000]
    trailed = chunked(*pieces)[:-2] + b"content-type: application/json\r\n\r\n"
    with server.connect() as connection:
        for framed in (chunked(*pieces), trailed):
            connection.send(head_bytes(request, ("transfer-encoding", "chunked")), framed)
            assert connection.answer().status == 200
            connection.send(to_bytes(signed("GET", "/restore-jobs/job-1/chunk/chunked")))
            assert connection.answer().body == b"".join(pieces)


@pytest.mark.parametrize("framed", [b"zz\r\n", b"5\r\nabcdeX", b"-1\r\n", b"ffffffffffffffffff\r\n"])
def test_a_malformed_chunk_stores_nothing(server, framed):
    with server.connect() as connection:
        connection.send(head_bytes(put_object("malformed"), ("transfer-encoding", "chunked")), framed)
        answer = connection.answer()
        assert (answer.status, answer.error) == (400, "NotReadableInputStreamException")
        assert connection.ended()
    assert server.calls == []


def test_a_client_that_expects_100_continue_gets_it(server):
    request = put_object("continued", b"abc")
    with server.connect() as connection:
        for _ in range(2):
            connection.send(head_bytes(request, ("content-length", "3"), ("expect", "100-continue")))
            assert connection.answer().status == 100
            connection.send(b"abc")
            assert connection.answer().status == 200


def test_a_refused_head_never_asks_for_its_body(server):
    with server.connect() as connection:
        connection.send(b"PUT /x HTTP/1.1\r\nhost: server\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n")
        answer = connection.answer()
        assert (answer.status, answer.error) == (403, "MissingAuthenticationTokenException")
        assert answer.headers["connection"] == "close"
        assert connection.ended()


@pytest.mark.parametrize("more", [0, 1])
def test_a_head_may_be_as_long_as_the_limit(server, more):
    request = b"GET /-/health HTTP/1.1\r\nhost: server\r\nx-long: \r\n\r\n"
    request = request.replace(b"x-long: ", b"x-long: " + b"a" * (32 * 1024 - len(request) + more))
    with server.connect() as connection:
        connection.send(request)
        answer = connection.answer()
        assert answer.status == (431 if more else 200)
        assert connection.ended() if more else answer.headers.get("connection") is None


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nx-endless: ", b"GET / HTTP/1.1\r\nx-endless"])
def test_an_endless_head_is_cut_off(server, start):
    with server.connect() as connection:
        connection.send(start)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.send(b"a" * 100_000_000)


def test_a_slow_body_times_out_and_stores_nothing(impatient_server):
    with impatient_server.connect() as connection:
        connection.send(head_bytes(put_object("slow-sender"), ("content-length", "5000")), b"a" * 999)
        answer = connection.answer()
        assert (answer.status, answer.error) == (400, "NotReadableInputStreamException")
        assert answer.headers["connection"] == "close"
        assert connection.ended()
    assert impatient_server.calls == []


def test_a_cut_connection_stores_nothing_and_is_logged(server):
    with server.connect() as connection:
        connection.send(head_bytes(put_object("cut"), ("content-length", "5000")), b"a" * 4999)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.logged(operation="PutObject", error="NotReadableInputStreamException")
    assert server.calls == []


def test_a_client_that_shuts_down_its_sending_side_gets_its_answer(server):
    with server.connect() as connection:
        connection.send(to_bytes(put_object("half-1", b"abc")), to_bytes(put_object("half-2", b"abc")))
        connection.socket.shutdown(socket.SHUT_WR)
        assert [connection.answer().status, connection.answer().status] == [200, 200]
        assert connection.ended()
    with server.connect() as connection:
        connection.send(head_bytes(put_object("half-3"), ("content-length", "5000")), b"a" * 4999)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.answer().error == "NotReadableInputStreamException"
        assert connection.ended()
    assert [call.split()[-1] for call in server.calls] == ["half-1", "half-2"]


def test_connection_close_is_honoured_and_later_bytes_are_ignored(server):
    with server.connect() as connection:
        connection.send(to_bytes(put_object("last", b"abc"), ("connection", "close")), to_bytes(put_object("beyond")))
        assert connection.answer().headers["connection"] == "close"
        assert connection.ended()
    assert [call.split()[-1] for call in server.calls] == ["last"]


def test_http_1_0_is_answered_and_closed(server):
    with server.connect() as connection:
        connection.send(b"GET /-/health HTTP/1.0\r\n\r\n")
        assert connection.answer().status == 200
        assert connection.ended()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00" * 100,
        b"GET /x\r\n\r\n",
        b"GET / HTTP/1.1\nhost: server\n\n",
        b"GET / HTTP/1.1\r\n host: server\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : server\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\x00b\r\n\r\n",
        b"CONNECT server:80 HTTP/1.1\r\nhost: server\r\n\r\n",
        b"PUT / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"PUT / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"PUT / HTTP/1.1\r\ncontent-length: -3\r\n\r\n",
        b"PUT / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"PUT / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 3\r\n\r\nabc",
    ],
)
def test_garbage_is_refused_and_the_connection_closed(server, garbage):
    with server.connect() as connection:
        connection.send(garbage)
        answer = connection.answer()
        assert (answer.status, answer.error) == (400, "IllegalArgumentException")
        assert "x-amzn-requestid" in answer.headers
        assert connection.ended()
    assert server.calls == []


def test_a_request_before_garbage_is_still_answered(server):
    with server.connect() as connection:
        connection.send(to_bytes(put_object("before-garbage")), b"\x00" * 100)
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert connection.ended()


def test_an_upgrade_is_ignored(server):
    with server.connect() as connection:
        connection.send(HEALTH.replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"))
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert connection.ended()


def test_a_request_target_in_absolute_form_is_accepted(server):
    absolute = HEALTH.replace(b"/-/health", b"http://server:80/-/health?x=1")
    assert server.exchange(absolute).status == 200


def test_raw_bytes_in_a_path_reach_the_service(server):
    """AWS.jl does not encode paths: a name beyond ASCII arrives as raw UTF-8 bytes."""
    name = "größe/雪/🧊"
    request = put_object(name.encode().decode("latin-1"), b"abc", payload_hash=None)
    assert server.exchange(to_bytes(request)).status == 200
    assert server.calls == [f"PutObject AKIATEST000000000000 {name}"]


def test_an_early_answer_can_be_read_by_a_client_that_still_sends(server):
    with server.connect() as connection:
        connection.send(b"PUT /x HTTP/1.1\r\nhost: server\r\ncontent-length: 6000000\r\n\r\n", b"a" * 6_000_000)
        assert connection.answer().error == "MissingAuthenticationTokenException"
        connection.send(HEALTH)
        assert connection.answer().status == 200


def test_an_early_answer_to_a_longer_body_closes_the_connection(strict_server):
    with strict_server.connect() as connection:
        connection.send(b"PUT /x HTTP/1.1\r\nhost: server\r\ncontent-length: 2000000\r\n\r\n", b"a" * 1_000_000)
        answer = connection.answer()
        assert (answer.error, answer.headers["connection"]) == ("MissingAuthenticationTokenException", "close")
        assert connection.ended()


def test_the_wait_for_an_unread_body_that_never_comes_is_short(impatient_server):
    with impatient_server.connect() as connection:
        connection.send(b"PUT /x HTTP/1.1\r\nhost: server\r\ncontent-length: 2000\r\n\r\n", b"a" * 1000)
        assert connection.answer().error == "MissingAuthenticationTokenException"
        assert connection.ended()


def test_connections_beyond_the_limit_are_refused(strict_server):
    def answers():
        with strict_server.connect() as connection:
            connection.send(HEALTH)
            return connection.answer()

    wait_for(lambda: answers().status == 200)
    connections = [strict_server.connect() for _ in range(20)]
    for connection in connections:
        connection.send(HEALTH)
        assert connection.answer().status == 200
    with strict_server.connect() as one_too_many:
        assert (answer := one_too_many.answer()).error == "ServiceUnavailableException"
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert one_too_many.ended()
    for connection in connections:
        connection.__exit__()
    wait_for(lambda: answers().status == 200)


def test_a_reader_that_stopped_reading_is_dropped(strict_server):
    body = b"a" * 30_000_000
    assert strict_server.exchange(to_bytes(put_object("unread", body))).status == 200
    request = to_bytes(signed("GET", "/restore-jobs/job-1/chunk/unread"))
    with RawConnection(strict_server.address) as connection:
        connection.send(request)
        strict_server.logged(operation="GetChunk", status=200)  # logged once the connection was dropped
        with pytest.raises((AssertionError, ConnectionResetError)):
            assert len(connection.answer().body) == len(body)


def test_the_paths_that_these_tests_use_are_those_of_the_api():
    assert PUT_OBJECT.format("x") == "/backup-jobs/job-1/object/x/put-object"


def test_a_client_that_reads_only_after_sending_gets_the_error_for_a_body_too_long(server):
    """Java's HTTP clients do so. The body is much longer than the part of an unread body that the server discards."""
    too_long = 65 * 1024 * 1024
    with server.connect() as connection:
        connection.send(head_bytes(put_object("n"), ("content-length", str(too_long))))
        for _ in range(65):
            connection.send(bytes(1024 * 1024))
        answer = connection.answer()
    assert (answer.status, answer.error) == (400, "IllegalArgumentException")
    assert "must be at most 67108864 bytes" in answer.message
