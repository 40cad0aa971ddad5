"""Counts of the load generator, also against a server that misbehaves."""

from __future__ import annotations

import socket
import threading

import pytest
from bench.load.generator import _drop, run
from bench.load.plan import LoadPlan, percentile

TAIL = b"0123456789abcdef"


class Server:
    """Answers request i of all connections together with `answers[i]`, or the last one; keeps received requests."""

    def __init__(self, answers: list[bytes], request_bytes: int) -> None:
        self._answers = answers
        self._request_bytes = request_bytes
        self._lock = threading.Lock()
        self.received: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        self._workers: list[threading.Thread] = []

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            worker = threading.Thread(target=self._answer, args=(connection,), daemon=True)
            worker.start()
            self._workers.append(worker)

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while len(request := stream.read(self._request_bytes)) == self._request_bytes:
                with self._lock:
                    answer = self._answers[min(len(self.received), len(self._answers) - 1)]
                    self.received.append(request)
                if not answer:
                    return
                connection.sendall(answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for worker in self._workers:
            worker.join()


@pytest.fixture
def serve():
    servers = []

    def make(answers, request_bytes):
        servers.append(Server(answers, request_bytes))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def answer(body: bytes = b"", status: str = "200 OK", head: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


def test_writes_send_head_base_and_tail(serve):
    server = serve([answer()], 4 + 100_000 + 16)
    base = bytes(range(250)) * 400
    tails = [bytes([number]) * 16 for number in range(20)]
    heads = [f"h{number:03}".encode() for number in range(20)]
    load = run(LoadPlan(server.port, 3, heads, tails, base))
    assert (load.requests, load.failures) == (20, 0)
    assert load.payload_bytes == 20 * (len(base) + 16)
    assert sorted(server.received) == [head + base + tail for head, tail in zip(heads, tails, strict=True)]


def test_reads_check_length_and_end(serve):
    answers = [answer(b"x" * 100 + TAIL), answer(b"x" * 99 + TAIL), answer(TAIL + b"x" * 100)]
    server = serve(answers, 4)
    load = run(LoadPlan(server.port, 1, [b"GET0"] * 3, [TAIL] * 3, answer_bytes=116))
    assert (load.requests, load.failures, load.payload_bytes) == (1, 2, 116)
    assert load.first_failure == "the body has 115 bytes"


def test_any_status_but_2xx_is_a_failure(serve):
    server = serve([answer(b"slow down", "429 Too Many Requests"), answer(status="204 No Content")], 4 + 16)
    load = run(LoadPlan(server.port, 1, [b"PUT0"] * 3, [TAIL] * 3))
    assert (load.requests, load.failures) == (2, 1)
    assert load.first_failure == "status 429: slow down"


@pytest.mark.parametrize("bad", [b"", b"SMTP ready\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", answer() + b"more"])
def test_a_broken_response_closes_only_its_connection(serve, bad):
    server = serve([bad, answer()], 4 + 16)
    load = run(LoadPlan(server.port, 1, [b"PUT0"] * 3, [TAIL] * 3))
    assert (load.requests, load.failures) == (2, 1)


def test_connection_close_is_obeyed_and_is_no_failure(serve):
    server = serve([answer(head="Connection: close\r\n")], 4 + 16)
    load = run(LoadPlan(server.port, 2, [b"PUT0"] * 5, [TAIL] * 5))
    assert (load.requests, load.failures) == (5, 0)


def test_repeat_continues_until_the_time_is_over(serve):
    server = serve([answer(TAIL)], 4)
    load = run(LoadPlan(server.port, 1, [b"GET0"], [TAIL], answer_bytes=16, repeat=True, seconds_max=1.0))
    assert load.requests > 1
    assert load.requests == len(server.received)


def test_a_run_ends_if_all_requests_fail(serve):
    server = serve([answer(status="503 Service Unavailable")], 4)
    load = run(LoadPlan(server.port, 1, [b"GET0"], [TAIL], answer_bytes=16, repeat=True, seconds_max=60))
    assert load.requests == 0
    assert load.failures == 100


def test_percentile_is_of_the_nearest_rank():
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([], 0.5)) == (50.0, 99.0, 0.0)
    assert percentile([7.0], 0.99) == 7.0


def test_drop_removes_bytes_across_parts():
    parts = [memoryview(b"abc"), memoryview(b""), memoryview(b"defg")]
    _drop(parts, 5)
    assert [bytes(part) for part in parts] == [b"fg"]
    _drop(parts, 2)
    assert parts == []
