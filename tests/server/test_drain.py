"""A server that was told to stop: it says so to whoever sends it requests, and goes on with these for a while."""

from __future__ import annotations

import signal
import socket
import urllib.error
import urllib.request

import pytest

from cryostore.core.errors import ConfigurationError
from cryostore.options.configuration import Configuration
from support.fake_process import fake_server, wait_for
from support.raw_http import put_object, to_bytes

HEALTH = b"GET /-/health HTTP/1.1\r\nhost: server\r\n\r\n"


def refuses_connections(address):
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def asker(server):
    """Asks the listener for whoever watches; answers status and text, or None once it is gone."""
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
def test_a_server_that_leaves_says_so_and_serves_on(tmp_path, workers):
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
        server.signal(signal.SIGTERM)  # a second one does not wait
        assert server.end() in (0, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_then_it_takes_no_more_and_is_live_to_the_end(tmp_path, workers):
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


def test_requests_that_wait_in_line_are_answered_first(tmp_path):
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


def test_a_time_below_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="drain_seconds"):
        Configuration(drain_seconds=-1)
