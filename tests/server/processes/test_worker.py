"""A worker in this process: how it serves, what it publishes, and how it shuts down."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import contextmanager

import pytest

from cryostore.core.ids import random_id
from cryostore.core.time import FrozenClock, wall_clock
from cryostore.options.configuration import Configuration
from cryostore.server.monitoring.log import Log
from cryostore.server.monitoring.metrics import Slot, private_meter
from cryostore.server.processes.worker import PeriodicTasks, Worker
from support.processes.fake_backend import FakeBackend
from support.processes.fake_process import wait_for
from support.requests.raw_http import RawConnection, put_object, to_bytes

HEALTH = b"GET /-/health HTTP/1.1\r\nhost: server\r\n\r\n"
END_SECONDS_MAX = 20


class Running:
    """A worker that serves in a thread."""

    def __init__(self, folder, listener, log, **settings):
        self.backend = FakeBackend(folder)
        self.meter = private_meter()
        self.ready = threading.Event()
        self.worker = Worker(
            Configuration(data_dir=folder, port=0, **settings),
            listener,
            self.backend,
            log=log,
            clock=wall_clock,
            new_id=random_id,
            ready=self.ready.set,
            meter=self.meter,
        )
        self.address = listener.getsockname()
        self.thread = threading.Thread(target=self.worker.run)
        self.thread.start()
        assert self.ready.wait(END_SECONDS_MAX)

    def connect(self):
        return RawConnection(self.address)

    def gauge(self, name):
        return Slot(self.meter._numbers).value(name)

    def end(self):
        self.thread.join(END_SECONDS_MAX)
        assert not self.thread.is_alive()


@pytest.fixture
def running(tmp_path):
    """Starts a worker, which is stopped after the test."""

    @contextmanager
    def start(**settings):
        with socket.create_server(("127.0.0.1", 0)) as listener, (tmp_path / "log").open("wb") as file:
            log = Log(os.dup(file.fileno()), clock=FrozenClock())
            one = Running(tmp_path, listener, log, **settings)
            try:
                yield one
            finally:
                one.backend.slow_may_end.set()
                one.worker.stop()
                one.end()
                log.close()

    return start


def logged(folder):
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def test_a_worker_publishes_its_connections_and_shuts_down_with_its_backend(running):
    with running() as one:
        with one.connect() as connection:
            connection.send(HEALTH)
            assert connection.answer().status == 200
            wait_for(lambda: one.gauge("connections") == 1)
        wait_for(lambda: one.gauge("connections") == 0)
        assert not one.backend.closed
    assert one.backend.closed


def test_a_draining_worker_publishes_it_and_serves_on(running):
    with running(drain_seconds=1000) as one:
        one.worker.stop()
        assert one.gauge("draining") == 1
        with one.connect() as connection:
            connection.send(HEALTH)
            answer = connection.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert one.thread.is_alive()
        one.worker._server.drain(0)


def test_a_request_under_way_is_finished(running):
    with running() as one, one.connect() as connection:
        connection.send(to_bytes(put_object("slow", b"abc")))
        assert one.backend.slow_began.wait(END_SECONDS_MAX)
        wait_for(lambda: one.gauge("requests_running") == 1)
        one.worker.stop()
        one.backend.slow_may_end.set()
        assert connection.answer().status == 200
        one.end()


def test_a_full_disk_is_logged_once_at_its_start_and_once_at_its_end(running, tmp_path):
    def events():
        return [line["event"] for line in logged(tmp_path) if line["event"].startswith("writes")]

    with running() as one:
        one.backend.takes_writes = False
        wait_for(lambda: events() == ["writes are refused"])
        heartbeat = one.gauge("heartbeat")
        wait_for(lambda: one.gauge("heartbeat") > heartbeat)
        one.backend.takes_writes = True
        wait_for(lambda: len(events()) > 1)
    assert events() == ["writes are refused", "writes are accepted again"]


def test_a_worker_without_tls_has_no_certificate_to_reload(running):
    with running() as one:
        one.worker.reload_certificate()
        wait_for(lambda: not one.worker._certificate.reload_requested)
        with one.connect() as connection:
            connection.send(HEALTH)
            assert connection.answer().status == 200


def test_tasks_are_repeated_although_they_fail(tmp_path):
    calls = []
    enough = threading.Event()

    def maintain():
        calls.append(threading.current_thread())
        if len(calls) == 3:
            enough.set()
        raise OSError("disk is away")

    with (tmp_path / "log").open("wb") as file:
        log = Log(os.dup(file.fileno()), clock=FrozenClock())
        with PeriodicTasks(maintain, period_seconds=0.001, log=log):
            assert enough.wait(10)
        calls[0].join(10)  # leaving waits for one period only, which is a millisecond here
        log.close()
    assert not calls[0].is_alive()
    assert (tmp_path / "log").read_text().count("maintenance failed") == len(calls)
