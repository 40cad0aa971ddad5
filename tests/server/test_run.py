"""A whole server as a process: start, announcement, graceful shutdown, crash and restart."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cryostore.core.errors import ConfigurationError
from cryostore.options.configuration import Configuration, to_json
from cryostore.server import run
from support.processes.fake_process import environment, fake_server, wait_for
from support.requests.raw_http import RawConnection, put_object, to_bytes

HEALTH = b"GET /-/health HTTP/1.1\r\nhost: server\r\n\r\n"


def workers_of(server):
    """The process ids of the workers."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(number) for number in children.split()]


def refuses_connections(address):
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_finishes_the_requests_under_way(tmp_path, workers):
    with fake_server(tmp_path, workers=workers) as server:
        assert server.first_line.startswith("listening on http://127.0.0.1:")
        with server.connect() as busy, server.connect() as idle:
            idle.send(HEALTH)
            assert idle.answer().status == 200
            busy.send(to_bytes(put_object("slow", b"abc")))
            wait_for((server.data_dir / "slow").exists)
            server.signal(signal.SIGTERM)
            assert idle.ended()
            wait_for(lambda: refuses_connections(server.address))
            (server.data_dir / "go").touch()
            answer = busy.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert busy.ended()
        assert server.end() == 0
        assert (server.data_dir / "closed").exists()
        assert server.process.stdout.read() == b""
        assert [line["event"] for line in server.log_lines() if line["level"] != "info"] == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_ends_at_once(tmp_path, workers):
    with fake_server(tmp_path, workers=workers) as server, server.connect() as busy:
        busy.send(to_bytes(put_object("slow", b"abc")))
        wait_for((server.data_dir / "slow").exists)
        server.signal(signal.SIGINT)
        wait_for(lambda: refuses_connections(server.address))
        server.signal(signal.SIGTERM)
        server.end()
        assert busy.ended()


def test_a_graceful_shutdown_has_a_time_limit(tmp_path):
    with fake_server(tmp_path, shutdown_seconds_max=0.2) as server, server.connect() as busy:
        busy.send(to_bytes(put_object("slow", b"abc")))
        wait_for((server.data_dir / "slow").exists)
        server.signal(signal.SIGTERM)
        assert server.end() == 0
        assert busy.ended()


@pytest.mark.parametrize("workers", [1, 3])
def test_after_kill_9_the_port_is_free_for_the_next_start(tmp_path, workers):
    with fake_server(tmp_path, workers=workers) as server:
        address = server.address
        server.signal(signal.SIGKILL)
        server.end()
        with fake_server(tmp_path, workers=workers, port=address[1]) as next_server:
            assert next_server.address == address
            with next_server.connect() as connection:
                connection.send(HEALTH)
                assert connection.answer().status == 200


def test_several_workers_share_the_work_and_one_that_crashed_is_restarted(tmp_path):
    with fake_server(tmp_path, workers=2) as server:
        workers = workers_of(server)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        fallen = server.logged(event="worker exited")
        assert (fallen["pid"], fallen["exit_code"]) == (workers[0], -signal.SIGKILL)
        wait_for(lambda: len(workers_of(server)) == 2 and workers[0] not in workers_of(server))
        for _ in range(10):
            assert server.exchange(to_bytes(put_object("name", b"abc"))).status == 200


def test_a_worker_that_gets_a_sigterm_itself_exits_cleanly(tmp_path):
    with fake_server(tmp_path, workers=2) as server:
        workers = workers_of(server)
        os.kill(workers[0], signal.SIGTERM)
        assert server.logged(event="worker exited")["exit_code"] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_cannot_start_says_why(tmp_path, workers):
    configuration = Configuration(data_dir=tmp_path / "missing", port=0, workers=workers)
    done = subprocess.run(
        [sys.executable, "-m", "support.processes.fake_server", to_json(configuration).decode()],
        check=False,
        capture_output=True,
        env=environment(),
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {tmp_path}/missing is no directory\nhint: make one" in done.stderr


def test_maintenance_runs_beside_the_requests(tmp_path):
    with fake_server(tmp_path, maintenance_seconds=0.01) as server:
        wait_for((server.data_dir / "maintained").exists)


def test_the_log_is_json_on_stderr(tmp_path):
    with fake_server(tmp_path) as server:
        answer = server.exchange(to_bytes(put_object("explode", b"abc")))
        line = server.logged(event="request")
        assert line["request_id"] == answer.headers["x-amzn-requestid"]
        assert "exploded as asked" in server.logged(event="failure")["traceback"]


def test_ipv6_is_listened_on(tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with fake_server(tmp_path, host="::1") as server:
        assert server.first_line.startswith("listening on http://[::1]:")
        with RawConnection(("::1", server.address[1])) as connection:
            connection.send(HEALTH)
            assert connection.answer().status == 200


def test_an_address_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(ConfigurationError) as refused:
            run.bind_listener("127.0.0.1", other.getsockname()[1], wait_seconds_max=0)
        assert "another server" in refused.value.hint


def test_an_unknown_host_is_refused():
    with pytest.raises(ConfigurationError):
        run.bind_listener("nowhere.invalid", 0)


def test_the_log_of_a_server_is_json_throughout(tmp_path):
    with fake_server(tmp_path, workers=2, log_level="debug") as server:
        server.exchange(HEALTH)
        server.exchange(b"\x00\x01\x02\r\n")
    assert all(isinstance(line, dict) for line in map(json.loads, server.log_path.read_text().splitlines()))


# --- graceful shutdown with a drain time -----------------------------------------------------------------------------


def asker(server):
    """Returns a function that asks a health probe, and returns status and text."""
    url = server.logged(event="metrics")["address"].removesuffix("/metrics")

    def ask(path):
        try:
            with urllib.request.urlopen(url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return ask


@pytest.mark.parametrize("workers", [1, 2])
def test_a_draining_server_reports_it_and_serves_on(tmp_path, workers):
    settings = {"workers": workers, "metrics_host": "127.0.0.1", "drain_seconds": 1000, "reserve_bytes": 0}
    with fake_server(tmp_path, **settings) as server, server.connect() as old:
        ask = asker(server)
        wait_for(lambda: ask("/-/ready") == (200, "ok\n"))
        old.send(HEALTH)
        assert "connection" not in old.answer().headers
        server.signal(signal.SIGTERM)
        wait_for(lambda: ask("/-/ready") == (503, "the server was told to stop\n"))
        assert ask("/-/live") == (200, "ok\n")
        wait_for(lambda: f"cryostore_workers_draining {workers}.0" in ask("/metrics")[1])
        for _ in range(5):
            wait_for(lambda: server.exchange(HEALTH).headers.get("connection") == "close")
        assert server.exchange(to_bytes(put_object("name", b"abc"))).status == 200
        old.send(HEALTH)
        answer = old.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert old.ended()
        server.signal(signal.SIGTERM)  # a second signal does not wait
        assert server.end() in (0, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_after_draining_it_accepts_no_connections_and_is_live_to_the_end(tmp_path, workers):
    settings = {"workers": workers, "metrics_host": "127.0.0.1", "drain_seconds": 0.3}
    with fake_server(tmp_path, **settings) as server, server.connect() as busy:
        ask = asker(server)
        busy.send(to_bytes(put_object("slow", b"abc")))
        wait_for((server.data_dir / "slow").exists)
        server.signal(signal.SIGTERM)
        wait_for(lambda: refuses_connections(server.address))
        assert ask("/-/live") == (200, "ok\n")
        assert ask("/-/ready")[0] == 503
        (server.data_dir / "go").touch()
        assert busy.answer().status == 200
        assert server.end() == 0
        assert [line["event"] for line in server.log_lines() if line["level"] != "info"] == []


def test_pipelined_requests_are_answered_before_the_shutdown(tmp_path):
    with fake_server(tmp_path, drain_seconds=1000) as server, server.connect() as connection:
        connection.send(to_bytes(put_object("slow", b"abc")) + HEALTH + HEALTH)
        wait_for((server.data_dir / "slow").exists)
        server.signal(signal.SIGTERM)
        wait_for(lambda: server.exchange(HEALTH).headers.get("connection") == "close")
        (server.data_dir / "go").touch()
        answers = [connection.answer() for _ in range(3)]
        said = [(answer.status, answer.headers.get("connection")) for answer in answers]
        assert said == [(200, None), (200, None), (200, "close")]
        server.signal(signal.SIGTERM)
        server.end()


def test_a_negative_drain_time_is_refused():
    with pytest.raises(ConfigurationError, match="--drain"):
        Configuration(drain_seconds=-1)
