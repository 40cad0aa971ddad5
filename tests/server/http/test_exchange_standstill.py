"""Standstill of a server for longer than its time-outs: progress that clients made meanwhile counts.

A process stands still when it is stopped, when its machine is frozen or moved, or when other processes use all of its
time. The event loop then finds timers due that it would never have reached, and runs them before it reads its sockets.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from cryostore.core.limits import Limits
from cryostore.options.configuration import ConnectionSettings
from support.processes.fake_process import fake_server, wait_for
from support.requests.raw_http import head_bytes, put_object, signed, to_bytes

IDLE_SECONDS_MAX = 1.5
IMPATIENT = ConnectionSettings(body_idle_seconds_max=IDLE_SECONDS_MAX, write_idle_seconds_max=IDLE_SECONDS_MAX)
LIMITS = Limits(chunk_bytes_max=32 * 1024 * 1024)


@pytest.fixture(scope="module")
def impatient_server(tmp_path_factory):
    """A server of its own."""
    with fake_server(tmp_path_factory.mktemp("impatient"), connection=IMPATIENT, limits=LIMITS) as server:
        yield server


def is_asleep(process_id):
    """Whether the main thread of a process waits for something, several times in a row."""
    states = []
    for _ in range(5):
        states.append(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0])
        time.sleep(0.01)
    return states == ["S"] * 5


@contextmanager
def stopped(server):
    """Stop the server's process within the block, which takes longer than its time-outs."""
    wait_for(lambda: is_asleep(server.process.pid))  # it has read all bytes sent so far and waits for more
    server.signal(signal.SIGSTOP)
    try:
        yield
        time.sleep(2 * IDLE_SECONDS_MAX)
    finally:
        server.signal(signal.SIGCONT)


@pytest.mark.parametrize("body_bytes", [700, 500_000], ids=["through the parser", "past it"])
def test_a_body_that_arrived_meanwhile_is_read(impatient_server, body_bytes):
    body = os.urandom(body_bytes)
    with impatient_server.connect() as connection:
        connection.send(head_bytes(put_object(f"late-{body_bytes}", body), ("content-length", str(body_bytes))))
        with stopped(impatient_server):
            connection.send(body[: body_bytes // 2])
        connection.send(body[body_bytes // 2 :])
        assert connection.answer().status == 200


def test_a_reader_that_read_meanwhile_is_not_dropped(impatient_server):
    body = os.urandom(30_000_000)
    assert impatient_server.exchange(to_bytes(put_object("read-late", body))).status == 200
    with impatient_server.connect() as connection:
        connection.send(to_bytes(signed("GET", "/restore-jobs/job-1/chunk/read-late")))
        connection.socket.recv(1)
        with stopped(impatient_server):
            received = 1
            while received < 1_000_000:
                received += len(connection.socket.recv(1 << 16))
        while received < len(body) and (piece := connection.socket.recv(1 << 20)):
            received += len(piece)
    assert received > len(body)
