"""The health probes: their answers beside workers that run, hang and crash."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cryostore.chunks.disk_reserve import FILE
from cryostore.core.errors import ConfigurationError
from cryostore.options.configuration import Configuration
from cryostore.server.monitoring import probes as probes_module
from cryostore.server.monitoring.exposition import PROMPT_SECONDS
from cryostore.server.monitoring.metrics import INDEXES, SharedMetrics, create_shared_metrics
from cryostore.server.monitoring.probes import ServerProbes, probes
from support.processes.fake_process import fake_server, wait_for


@pytest.fixture
def shared():
    descriptor = create_shared_metrics(1)
    yield SharedMetrics(descriptor)
    os.close(descriptor)


@pytest.fixture
def ask(tmp_path, shared):
    """Asks a listener for a path; answers status, headers and text."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def ask(path, method="GET"):
        try:
            with urllib.request.urlopen(urllib.request.Request(url + path, method=method), timeout=10) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()

    with probes(listener, ServerProbes(shared, tmp_path, reserve_bytes=1)):
        yield ask


def test_paths(ask, shared):
    shared.meter(0).show(connections=3)
    status, headers, body = ask("/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "cryostore_connections 3.0\n" in body
    assert ask("/metrics?name=x")[0] == 200
    assert ask("/")[0] == 404
    assert ask("/-/health")[0] == 404
    status, headers, body = ask("/metrics", "HEAD")
    assert (status, body) == (200, "")
    assert ask("/metrics", "POST")[0] == 501
    assert "Python" not in headers["server"]


def test_live_while_a_worker_has_a_heartbeat(ask, shared):
    assert ask("/-/live")[0] == 503
    shared.meter(0).show(connections=0)
    assert ask("/-/live")[::2] == (200, "ok\n")
    shared.clear_gauges(0)
    assert ask("/-/live")[0] == 503


def test_a_server_that_shuts_down_is_live_and_not_ready(ask, shared, tmp_path):
    """However long its last requests take: its event loop has no heartbeat then."""
    (tmp_path / FILE).touch()
    meter = shared.meter(0)
    meter.show(connections=1)
    assert ask("/-/ready")[0] == 200
    meter.show(draining=True)
    meter._numbers[INDEXES["heartbeat"]] = 1.0
    assert ask("/-/live")[::2] == (200, "ok\n")
    assert ask("/-/ready")[::2] == (503, "the server was told to stop\n")
    assert ask("/-/serving")[0] == 404, "its connections are not to be cut"
    shared.clear_gauges(0)
    assert ask("/-/live")[0] == 503


def test_a_server_without_its_catalog_is_live_and_not_ready(ask, shared, tmp_path):
    (tmp_path / FILE).touch()
    meter = shared.meter(0)
    meter.show(store_away=True)
    assert ask("/-/live")[0] == 200
    assert ask("/-/serving")[0] == 503, "its connections may be cut"
    assert ask("/-/ready")[::2] == (503, "the catalog does not answer, or no longer matches this server\n")
    meter.show(store_away=False)
    assert ask("/-/ready")[0] == 200


@pytest.mark.parametrize(("gauge", "said"), [("key_away", "lacks the master key"), ("blobs_away", "others can")])
def test_a_server_without_a_part_of_its_store_is_live_and_not_ready(ask, shared, tmp_path, gauge, said):
    (tmp_path / FILE).touch()
    meter = shared.meter(0)
    meter.show(**{gauge: True})
    assert ask("/-/live")[0] == 200
    status, _, text = ask("/-/ready")
    assert (status, said in text) == (503, True)
    meter.show(**{gauge: False})
    assert ask("/-/ready")[0] == 200


def test_a_node_of_a_shared_store_has_no_disk_to_check(shared):
    watch = ServerProbes(shared, None, reserve_bytes=0)
    shared.meter(0).show(connections=0)
    assert watch.ready()[0] == 200
    text = watch.metrics()[2].decode()
    assert "cryostore_workers 1.0" in text
    assert "cryostore_reserve_held" not in text
    assert "cryostore_free_bytes" not in text


def test_ready_while_a_write_would_be_accepted(ask, shared, tmp_path, monkeypatch):
    assert ask("/-/ready")[::2] == (503, "no worker has a recent heartbeat\n")
    shared.meter(0).show(connections=0)
    assert ask("/-/ready")[::2] == (503, "the disk is full, and the reserve is in use\n")
    (tmp_path / FILE).touch()
    assert ask("/-/ready")[::2] == (200, "ok\n")

    def fail(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    assert ask("/-/ready")[::2] == (503, "the data directory accepts no writes: Read-only file system\n")


def test_a_worker_that_hangs_or_is_full_is_not_ready(ask, shared, tmp_path):
    (tmp_path / FILE).touch()
    meter = shared.meter(0)
    meter.show(full=True)
    assert ask("/-/ready")[::2] == (503, "no connections are accepted: the limit is reached\n")
    meter.show(full=False)
    assert ask("/-/ready")[0] == 200
    meter._numbers[INDEXES["heartbeat"]] -= PROMPT_SECONDS
    assert ask("/-/ready")[::2] == (503, "no worker has a recent heartbeat\n")
    assert ask("/-/live")[0] == 200


@contextlib.contextmanager
def listening(answers, **settings):
    """The address at which probes are served."""
    listener = socket.create_server(("127.0.0.1", 0))
    with probes(listener, answers, **settings):
        yield listener.getsockname()


def ask_for(address, path):
    """A connection on which a path was requested."""
    client = socket.create_connection(address, timeout=10)
    client.sendall(b"GET %b HTTP/1.0\r\n\r\n" % path.encode())
    return client


def first_line(address, path):
    with ask_for(address, path) as client:
        return client.makefile("rb").readline()


def test_slow_clients_delay_no_other_client_and_no_shutdown(shared, tmp_path):
    """More clients than the connection limit, each with a part of a request; some read nothing."""
    shared.meter(0).show()
    patience_seconds = 60
    began = time.monotonic()
    slow = []
    with listening(ServerProbes(shared, tmp_path, reserve_bytes=0), request_seconds_max=patience_seconds) as address:
        for number in range(3 * probes_module.CONNECTIONS_MAX):
            slow.append(socket.create_connection(address, timeout=10))
            slow[-1].sendall(b"GET /metrics HTTP/1.0\r\n" + (b"\r\n" if number % 2 else b"x: "))
        for path in ("/-/live", "/-/ready", "/metrics"):
            assert first_line(address, path).startswith(b"HTTP/1.0 ")
        with contextlib.suppress(ConnectionResetError):
            assert slow[0].recv(1) == b""  # the oldest was closed for a new one
    assert time.monotonic() - began < patience_seconds
    for client in slow:
        client.close()


def test_a_request_has_a_total_time_limit(shared, tmp_path):
    with listening(ServerProbes(shared, tmp_path, reserve_bytes=0), request_seconds_max=1) as address:
        with socket.create_connection(address, timeout=10) as client:
            client.sendall(b"GET /metrics")
            assert client.recv(1) == b""
        with socket.create_connection(address, timeout=10) as client:
            with contextlib.suppress(OSError):
                client.sendall(b"x" * 3 * probes_module.HEAD_BYTES_MAX)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""


def test_a_disk_that_does_not_answer_delays_neither_live_nor_the_shutdown(shared, tmp_path, monkeypatch):
    answers = threading.Event()
    watch = ServerProbes(shared, tmp_path, reserve_bytes=0)
    shared.meter(0).show()
    monkeypatch.setattr(watch, "_disk_trouble", lambda: str(answers.wait(60)))
    with listening(watch, disk_seconds_max=2) as address:
        clients = [ask_for(address, "/-/ready") for _ in range(probes_module.DISK_REQUESTS_MAX + 1)]
        for client in clients:
            with client:
                assert client.recv(1000).startswith(b"HTTP/1.0 503")
        assert first_line(address, "/-/live").startswith(b"HTTP/1.0 200")
        assert first_line(address, "/metrics").startswith(b"HTTP/1.0 200")
    answers.set()


def test_without_descriptors_it_does_not_spin(shared, tmp_path, monkeypatch):
    failures = [OSError(errno.EMFILE, "too many open files")] * 2
    naps = []
    real_accept, real_sleep = asyncio.SelectorEventLoop.sock_accept, asyncio.sleep

    async def accept(self, listener):
        if failures:
            raise failures.pop()
        return await real_accept(self, listener)

    async def sleep(seconds):
        naps.append(seconds)
        await real_sleep(0)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_accept", accept)
    monkeypatch.setattr(probes_module.asyncio, "sleep", sleep)
    with listening(ServerProbes(shared, tmp_path, reserve_bytes=0)) as address:
        assert first_line(address, "/-/live").startswith(b"HTTP/1.0 503")
    assert naps == [probes_module.WITHOUT_DESCRIPTORS_SECONDS] * 2


def children(server):
    """The process ids of the workers."""
    text = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(number) for number in text.split()]


@pytest.mark.parametrize("workers", [1, 2])
def test_beside_a_server(tmp_path, workers):
    with fake_server(tmp_path, workers=workers, metrics_host="127.0.0.1") as server:
        url = server.logged(event="metrics")["address"].removesuffix("/metrics")

        def text_of(path):
            with urllib.request.urlopen(url + path, timeout=10) as answer:
                return answer.read().decode()

        wait_for(lambda: f"cryostore_workers {workers}.0" in text_of("/metrics"))
        server.exchange(b"GET /-/health HTTP/1.1\r\nhost: server\r\n\r\n")
        counted = 'cryostore_requests_total{operation="none",status="2xx"} 1.0'
        wait_for(lambda: counted in text_of("/metrics"))
        assert text_of("/-/live") == "ok\n"
        if workers > 1:
            for worker in children(server):
                os.kill(worker, signal.SIGKILL)
            wait_for(lambda: f"cryostore_workers {workers}.0" in text_of("/metrics"))
            assert counted in text_of("/metrics")


def test_the_address_follows_the_rules_of_the_main_one():
    with pytest.raises(ConfigurationError, match="metrics are sent without TLS"):
        Configuration(metrics_host="0.0.0.0")
    assert Configuration(metrics_host="0.0.0.0", insecure_listen=True).metrics_host == "0.0.0.0"
    assert Configuration(metrics_host="::1").metrics_host == "::1"
    with pytest.raises(ConfigurationError, match="port"):
        Configuration(metrics_host="::1", metrics_port=65536)
