"""Connection balancing among real worker processes, and in one worker while the test acts as the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import ssl
from pathlib import Path

import pytest

from cryostore.server.http import connection_balancer
from cryostore.server.http.connection_balancer import (
    ABSENT,
    ConnectionBalancer,
    ConnectionCounts,
    create_connection_counts,
    mark_absent,
)
from support.processes.fake_process import fake_server, wait_for

HEALTH = b"GET /-/health HTTP/1.1\r\nhost: server\r\n\r\n"
ESTABLISHED = "01"


def children(server):
    """The process ids of the workers."""
    text = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(number) for number in text.split()]


def connections_of(server) -> list[int]:
    """How many connections each worker has."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f":{server.address[1]:04X}"
    ours = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == ESTABLISHED}
    return [sum(link in ours for link in links(process_id)) for process_id in children(server)]


def published_counts(server) -> list[int]:
    """The counts that the workers share, read through the descriptor that each of them has."""
    worker = children(server)[0]
    *_, counts, _ = Path(f"/proc/{worker}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    return list(memoryview(Path(f"/proc/{worker}/fd/{counts.decode()}").read_bytes()).cast("q"))


def links(process_id):
    for path in Path(f"/proc/{process_id}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(path)  # noqa: PTH115 - it leads nowhere


def open_connections(server, count):
    connections = [server.connect() for _ in range(count)]
    for connection in connections:
        connection.send(HEALTH)
    for connection in connections:
        assert connection.answer().status == 200
    return connections


def test_simultaneous_connections_are_balanced(tmp_path, monkeypatch):
    """A worker that the system leaves asleep gets its share nevertheless, because the other waits longer here."""
    monkeypatch.setenv("YIELD_SECONDS", "0.5")
    with fake_server(tmp_path, workers=2) as server:
        for _ in range(3):
            connections = open_connections(server, 16)
            assert sorted(connections_of(server)) in ([8, 8], [7, 9])  # both may accept at the same time
            for connection in connections:
                connection.__exit__()
            wait_for(lambda: published_counts(server) == [0, 0])


def test_a_restarted_worker_takes_its_share(tmp_path):
    with fake_server(tmp_path, workers=2) as server:
        os.kill(children(server)[0], signal.SIGKILL)
        server.logged(event="worker exited")
        first = open_connections(server, 4)
        wait_for(lambda: len(children(server)) == 2 and next(links(children(server)[1]), None))
        later = []

        def shared():
            later.extend(open_connections(server, 1))
            return min(connections_of(server)) > 0

        wait_for(shared)
        for connection in (*first, *later):
            connection.__exit__()


# --- one worker -------------------------------------------------------------------------------------------------------


class Served(asyncio.Protocol):
    """A connection that was accepted."""

    def __init__(self, taken):
        self.taken = taken

    def connection_made(self, transport):
        self.taken.append(transport)


class Balanced:
    """A balancer with a listener and the counts of two workers; the test acts as the other worker."""

    def __init__(self, tls=None, **settings):
        self.taken = []
        self.refused = []
        self.descriptor = create_connection_counts(2)
        self.other = ConnectionCounts(self.descriptor, 1)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.balancer = ConnectionBalancer(
            self.listener,
            lambda: Served(self.taken),
            counts=ConnectionCounts(self.descriptor, 0),
            connections=lambda: len(self.taken),
            tls=tls,
            refused=lambda: self.refused.append(True),
            **settings,
        )

    def connect(self):
        return socket.create_connection(self.listener.getsockname())

    async def until_waiting(self):
        """Wait until the balancer leaves a connection to the other worker."""
        while self.balancer._pause is None:  # noqa: ASYNC110 - the loop itself sets it
            await asyncio.sleep(0)

    def resume(self):
        """End the time for which the balancer leaves a connection to the other worker."""
        self.balancer._pause.cancel()
        self.balancer._resume_accepting()

    async def until_taken(self, count):
        while len(self.taken) < count:  # noqa: ASYNC110 - a protocol, not the test, adds to it
            await asyncio.sleep(0)

    async def end(self):
        self.balancer.close()
        await self.balancer.wait_closed()
        for transport in self.taken:
            transport.abort()
        await asyncio.sleep(0)
        self.listener.close()
        os.close(self.descriptor)


def with_balancer(scenario, **settings):
    async def run():
        balanced = Balanced(**settings)
        try:
            async with asyncio.timeout(20):
                await scenario(balanced)
        finally:
            await balanced.end()

    asyncio.run(run())


def test_the_least_busy_worker_accepts_at_once():
    async def scenario(balanced):
        balanced.other.publish(1)
        with balanced.connect(), balanced.connect():
            await balanced.until_taken(2)
            assert balanced.other.fewest_elsewhere() == 2

    with_balancer(scenario, yield_seconds=1000)


def test_a_busier_worker_leaves_a_connection_to_the_other_for_a_limited_time():
    async def scenario(balanced):
        balanced.other.publish(0)
        with balanced.connect(), balanced.connect():
            await balanced.until_taken(1)
            await balanced.until_waiting()
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(balanced.taken) == 1
            balanced.resume()
            await balanced.until_taken(2)

    with_balancer(scenario, yield_seconds=1000)


def test_a_connection_that_another_worker_accepted_is_no_error():
    async def scenario(balanced):
        with balanced.connect():
            other, _ = balanced.listener.accept()
            other.close()
            balanced.balancer._accept()
            assert balanced.taken == []

    with_balancer(scenario)


def highest_descriptor():
    return max(int(path.name) for path in Path("/proc/self/fd").iterdir())


def test_without_descriptors_connections_are_refused_and_later_ones_accepted():
    """Only the spare descriptor is left. The limit is real, because the balancer relies on the system's behaviour."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario(balanced):
        clients = [balanced.connect() for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest_descriptor() + 1, hard))
        fillers = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            while len(balanced.refused) < 3:  # noqa: ASYNC110 - the loop itself adds to it
                await asyncio.sleep(0.001)
        finally:
            for filler in fillers:
                os.close(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for client in clients:
            client.settimeout(5)
            answer = client.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"ServiceUnavailableException" in answer
            client.close()
        assert balanced.taken == []
        with balanced.connect():
            await balanced.until_taken(1)

    with_balancer(scenario, connections_max=lambda: 1000)


def test_the_store_keeps_its_share_of_the_descriptors():
    async def scenario(balanced):
        with balanced.connect(), balanced.connect() as second:
            await balanced.until_taken(1)
            second.setblocking(False)
            assert (await asyncio.get_running_loop().sock_recv(second, 12)) == b"HTTP/1.1 503"
        assert len(balanced.taken) == 1

    with_balancer(scenario, connections_max=lambda: 1)


def test_connections_max_follows_the_limit(monkeypatch):
    for limit, connections in ((100, 50), (512, 256), (10_000, 9744)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert connection_balancer.connections_max() == connections


def test_a_failed_handshake_ends_only_its_connection():
    async def run():
        balanced = Balanced(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        with balanced.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
            while not balanced.balancer._starting:  # noqa: ASYNC110 - the loop itself adds to it
                await asyncio.sleep(0)
            await balanced.balancer.wait_closed()
        assert balanced.taken == []
        assert balanced.balancer.publish_count() == 0
        await balanced.end()
        assert balanced.other.fewest_elsewhere() == ABSENT

    asyncio.run(run())


@pytest.fixture
def descriptor():
    descriptor = create_connection_counts(3)
    yield descriptor
    os.close(descriptor)


def test_the_lowest_count_of_the_other_workers_is_found(descriptor):
    workers = [ConnectionCounts(descriptor, slot) for slot in range(3)]
    assert workers[0].fewest_elsewhere() == ABSENT
    workers[0].publish(1)
    workers[1].publish(5)
    assert [one.fewest_elsewhere() for one in workers] == [5, 1, 1]


def test_a_worker_that_exited_counts_as_absent(descriptor):
    first, second = ConnectionCounts(descriptor, 0), ConnectionCounts(descriptor, 1)
    second.publish(0)
    assert first.fewest_elsewhere() == 0
    mark_absent(descriptor, 1)
    assert first.fewest_elsewhere() == ABSENT


def test_a_single_worker_has_no_others():
    descriptor = create_connection_counts(1)
    assert ConnectionCounts(descriptor, 0).fewest_elsewhere() == ABSENT
    os.close(descriptor)
