"""Load generator: sends ready-made requests over raw sockets with epoll, in its own process.

While the clock runs it makes, signs and parses as little as possible, so that the server is measured. Its own CPU time
is counted separately.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import select
import socket
import time
from typing import TYPE_CHECKING, Self

from bench.load.plan import LoadPlan, LoadResult, percentile
from bench.load.response import Response, ResponseError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Pipe

RECEIVE_BYTES = 1024 * 1024
FAILURES_MAX = 100  # after such a pause the measurement is useless
STALL_SECONDS_MAX = 30.0


class StalledError(Exception):
    """No byte came from the server for STALL_SECONDS_MAX although requests were in flight."""


class LoadProcess:
    """A process that runs plans, one after the other. A context manager."""

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()

    def run(self, plan: LoadPlan) -> LoadResult:
        """Run a plan to its end. Raises StalledError if the server stops responding."""
        self._pipe.send(plan)
        result = self._pipe.recv()
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, LoadResult)
        return result


def _serve(pipe: Pipe) -> None:
    with contextlib.suppress(EOFError):
        while True:
            plan = pipe.recv()
            try:
                pipe.send(run(plan))
            except (OSError, StalledError) as error:
                pipe.send(error)


def run(plan: LoadPlan) -> LoadResult:
    """Run a plan in this process."""
    return _Run(plan).run()


class _Exchange:
    """One connection and its request in flight."""

    __slots__ = ("index", "parts", "response", "sending", "socket", "started")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.index = -1
        self.parts: list[memoryview] = []
        self.response = Response()
        self.started = 0.0
        self.sending = False  # whether epoll waits until the socket is writable


class _Run:
    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.base = memoryview(plan.base)
        self.buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.epoll = select.epoll()
        self.exchanges: dict[int, _Exchange] = {}
        self.next = 0
        self.deadline = 0.0
        self.latencies: list[float] = []
        self.payload_bytes = 0
        self.failures = 0
        self.first_failure = ""
        self.busy = 0

    def run(self) -> LoadResult:
        for _ in range(self.plan.connections):
            self._open()
        cpu = time.process_time()
        start = time.perf_counter()
        self.deadline = start + self.plan.seconds_max
        for exchange in list(self.exchanges.values()):
            self._begin(exchange)
        while self.busy:
            events = self.epoll.poll(STALL_SECONDS_MAX)
            if not events:
                raise StalledError(f"no answer for {STALL_SECONDS_MAX:.0f} seconds")
            for number, _ in events:
                self._step(self.exchanges[number])
        seconds = time.perf_counter() - start
        cpu = time.process_time() - cpu
        self._close()
        return LoadResult(
            requests=len(self.latencies),
            payload_bytes=self.payload_bytes,
            seconds=seconds,
            latency_p50_seconds=percentile(self.latencies, 0.5),
            latency_p99_seconds=percentile(self.latencies, 0.99),
            client_cpu_seconds=cpu,
            failures=self.failures,
            first_failure=self.first_failure,
        )

    def _open(self) -> _Exchange:
        connected = socket.create_connection((self.plan.host, self.plan.port))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)  # noqa: FBT003 - the interface of sockets
        exchange = _Exchange(connected)
        self.exchanges[connected.fileno()] = exchange
        self.epoll.register(connected.fileno(), select.EPOLLIN)
        return exchange

    def _close(self) -> None:
        self.epoll.close()
        for exchange in self.exchanges.values():
            exchange.socket.close()

    def _reopen(self, exchange: _Exchange) -> _Exchange:
        del self.exchanges[exchange.socket.fileno()]
        exchange.socket.close()  # which also removes it from epoll
        return self._open()

    def _begin(self, exchange: _Exchange) -> None:
        """Send the next request if there is one and the time is not over."""
        plan = self.plan
        index = self.next
        if index >= len(plan.heads):
            if not plan.repeat:
                return
            index = self.next = 0
        now = time.perf_counter()
        if now >= self.deadline or self.failures >= FAILURES_MAX:
            return
        self.next = index + 1
        self.busy += 1
        exchange.index = index
        exchange.response = Response()
        exchange.started = now
        exchange.parts = [memoryview(plan.heads[index])]
        if not plan.is_read:
            exchange.parts += [self.base, memoryview(plan.tails[index])]
        self._send(exchange)

    def _send(self, exchange: _Exchange) -> None:
        parts = exchange.parts
        try:
            while parts:
                _drop(parts, exchange.socket.sendmsg(parts))
        except BlockingIOError:
            if not exchange.sending:
                self.epoll.modify(exchange.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
                exchange.sending = True
            return
        except OSError:
            parts.clear()  # the next event reads the response or the end of the connection
        if exchange.sending:
            self.epoll.modify(exchange.socket.fileno(), select.EPOLLIN)
            exchange.sending = False

    def _step(self, exchange: _Exchange) -> None:
        if exchange.parts:
            self._send(exchange)
        try:
            size = exchange.socket.recv_into(self.buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if exchange.index < 0:  # idle: the server may close it at any time
            self._reopen(exchange)
            return
        if size == 0:
            self._fail(exchange, "the server closed the connection")
            return
        try:
            exchange.response.feed(self.buffer[:size])
        except ResponseError as error:
            self._fail(exchange, str(error))
            return
        if exchange.response.complete:
            self._finish(exchange)

    def _fail(self, exchange: _Exchange, reason: str) -> None:
        self.busy -= 1
        self._note(reason)
        self._begin(self._reopen(exchange))

    def _note(self, reason: str) -> None:
        self.failures += 1
        self.first_failure = self.first_failure or reason

    def _finish(self, exchange: _Exchange) -> None:
        response, index, unsent = exchange.response, exchange.index, bool(exchange.parts)
        elapsed = time.perf_counter() - exchange.started
        self.busy -= 1
        exchange.index = -1
        reason = _fault(self.plan, index, response)
        if reason:
            self._note(reason)
        else:
            self.latencies.append(elapsed)
            self.payload_bytes += (
                response.body_bytes if self.plan.is_read else len(self.base) + len(self.plan.tails[index])
            )
        self._begin(self._reopen(exchange) if response.closes or unsent else exchange)


def _fault(plan: LoadPlan, index: int, response: Response) -> str:
    """Return the fault of a response; empty if it has none."""
    if not response.is_success:
        return f"status {response.status}: {response.start.decode(errors='replace')}"
    if plan.is_read and response.body_bytes != plan.answer_bytes:
        return f"the body has {response.body_bytes} bytes"
    if plan.is_read and response.tail != plan.tails[index]:
        return "the body is another one"
    return ""


def _drop(parts: list[memoryview], sent: int) -> None:
    """Remove the first `sent` bytes of the parts."""
    while parts and sent >= len(parts[0]):
        sent -= len(parts[0])
        del parts[0]
    if sent:
        parts[0] = parts[0][sent:]
