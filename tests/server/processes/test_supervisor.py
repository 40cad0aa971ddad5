"""The parent of several workers, with workers that are shell scripts: what they say, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from cryostore.core.errors import ConfigurationError
from cryostore.core.time import FrozenClock
from cryostore.options.configuration import Configuration
from cryostore.server.monitoring.log import Log
from cryostore.server.monitoring.metrics import create_shared_metrics
from cryostore.server.processes import supervisor
from cryostore.server.processes.supervisor import Supervisor
from support.fake_process import wait_for

READY = """echo '{"ready":true}'; """
UNTIL_STOP = "while read line && [ $line != stop ]; do :; done"


@pytest.fixture
def parent(tmp_path, monkeypatch):
    """Makes a supervisor of workers that run a shell script; its signals are put back afterwards."""
    monkeypatch.setattr(supervisor, "RESTART_SECONDS_MIN", 0.01)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    listener = socket.create_server(("127.0.0.1", 0))
    file = (tmp_path / "log").open("wb")
    log = Log(file.fileno(), clock=FrozenClock())
    metrics = create_shared_metrics(3)

    def make(script, *, ready=lambda: None, workers=2, **settings):
        configuration = Configuration(data_dir=tmp_path, workers=workers, **settings)
        command = ("sh", "-c", script, "sh")
        return Supervisor(configuration, listener, log=log, ready=ready, metrics=metrics, command=command)

    yield make
    log.close()
    os.close(metrics)
    file.close()
    listener.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def signal_when(condition, number=signal.SIGTERM):
    """Send this process a signal once a condition holds."""

    def run():
        wait_for(condition)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_ready_is_told_once_all_are_and_stop_reaches_all(parent):
    told = []
    thread = signal_when(lambda: told)
    parent(READY + UNTIL_STOP, ready=lambda: told.append(True), workers=3).run()
    thread.join()
    assert told == [True]


def test_a_worker_that_falls_is_started_again(parent, tmp_path):
    once_all_are_ready = f"while [ ! -e {tmp_path}/ready ]; do sleep 0.01; done; "
    fall_at_first = f"[ $(wc -l < {tmp_path}/starts) -le 5 ] && exit 7; "
    script = f"echo x >> {tmp_path}/starts; " + READY + once_all_are_ready + fall_at_first + UNTIL_STOP

    def starts():
        path = tmp_path / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    thread = signal_when(lambda: starts() >= 7)
    parent(script, ready=(tmp_path / "ready").touch).run()
    thread.join()
    assert starts() >= 7


@pytest.mark.parametrize("stray", ["echo hello", r"printf '\377\n'", "echo '{}'", "head -c 200000 /dev/zero; echo"])
def test_a_line_that_is_no_report_changes_nothing(parent, tmp_path, stray):
    """The fall of a worker is still seen: all start a second time."""
    fall_at_first = f"[ $(wc -l < {tmp_path}/starts) -le 2 ] && exit 7; "
    once_all_are_ready = f"while [ ! -e {tmp_path}/ready ]; do sleep 0.01; done; "
    script = f"echo x >> {tmp_path}/starts; {stray}; {READY}{stray}; {once_all_are_ready}{fall_at_first}{UNTIL_STOP}"
    (tmp_path / "starts").touch()
    thread = signal_when(lambda: len((tmp_path / "starts").read_text().splitlines()) >= 4)
    parent(script, ready=(tmp_path / "ready").touch).run()
    thread.join()
    assert "worker printed a line" in (tmp_path / "log").read_text()


def test_a_worker_that_cannot_start_ends_the_others(parent):
    script = """echo '{"ready":false,"message":"no","hint":"yes"}'; """
    with pytest.raises(ConfigurationError) as refused:
        parent(script + UNTIL_STOP).run()
    assert (refused.value.message, refused.value.hint) == ("no", "yes")


def test_a_worker_that_ends_while_it_starts_is_no_start(parent):
    with pytest.raises(ConfigurationError, match="exited with code 7"):
        parent("exit 7").run()


def test_a_worker_that_does_not_stop_is_killed_in_the_end(parent, monkeypatch):
    monkeypatch.setattr(supervisor, "KILL_AFTER_SECONDS", 0)
    told = []
    thread = signal_when(lambda: told)
    parent(READY + "exec sleep 600", ready=lambda: told.append(True), shutdown_seconds_max=0.1).run()
    thread.join()


def test_a_second_signal_kills(parent):
    told = []
    first = signal_when(lambda: told)
    second = signal_when(lambda: not first.is_alive(), signal.SIGINT)
    parent(READY + "exec sleep 600", ready=lambda: told.append(True)).run()
    first.join()
    second.join()
