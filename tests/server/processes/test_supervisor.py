"""The supervisor of several workers. The workers are shell scripts, which note their starts and the lines they read."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from cryostore.core.errors import ConfigurationError
from cryostore.core.time import FrozenClock
from cryostore.options.configuration import Configuration
from cryostore.server.monitoring.log import Log
from cryostore.server.monitoring.metrics import SharedMetrics, create_shared_metrics
from cryostore.server.processes.supervisor import Supervisor
from support.processes.fake_process import wait_for

READY = """echo '{"ready":true}'; """
END_SECONDS_MAX = 20


@dataclass
class Parent:
    """Runs a supervisor in the main thread of the test, on a listener and a log of its own."""

    folder: Path
    listener: socket.socket
    log: Log
    metrics: int
    ready: int = 0
    ended: bool = False

    def supervisor(self, script, *, workers=2, kill_after_seconds=END_SECONDS_MAX, on_ready=lambda: None, **settings):
        """A supervisor whose workers run a script: `$0` is the slot, `starts`, `lines` and `ended` are noted files."""
        configuration = Configuration(data_dir=self.folder, workers=workers, **settings)

        def ready():
            self.ready += 1
            on_ready()

        return Supervisor(
            configuration,
            self.listener,
            log=self.log,
            ready=ready,
            metrics=self.metrics,
            command=("sh", "-c", f"cd {self.folder}; slot=$2; echo $$ >> starts; {script}", "sh"),
            restart_seconds_min=0.01,
            kill_after_seconds=kill_after_seconds,
        )

    def run(self, script, *, signals=(), **settings):
        """Run a supervisor to its end; send it each signal once the condition beside it holds.

        A supervisor that does not end in time is ended by force, and fails the test.
        """
        overdue = threading.Event()

        def end_by_force():
            overdue.set()
            for process_id in self.started:
                os.kill(process_id, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

        watchdog = threading.Timer(END_SECONDS_MAX, end_by_force)
        senders = [threading.Thread(target=self._send, args=one) for one in signals]
        for thread in (watchdog, *senders):
            thread.start()
        try:
            self.supervisor(script, **settings).run()
        finally:
            self.ended = True
            watchdog.cancel()
            for thread in (watchdog, *senders):
                thread.join()
        assert not overdue.is_set(), "the supervisor did not end in time"

    def _send(self, number, condition):
        wait_for(lambda: self.ended or condition())
        if not self.ended:
            os.kill(os.getpid(), number)

    def noted(self, name):
        """The lines of a file that the workers write to."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def started(self):
        """The process ids of all workers that were started."""
        return [int(line) for line in self.noted("starts")]

    def events(self, name):
        """The log lines of an event."""
        self.log.close()
        lines = map(json.loads, (self.folder / "log").read_text().splitlines())
        return [line for line in lines if line["event"] == name]


@pytest.fixture
def parent(tmp_path):
    """A supervisor's parent; the signal handlers of the test are put back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with socket.create_server(("127.0.0.1", 0)) as listener, (tmp_path / "log").open("wb") as file:
        log = Log(file.fileno(), clock=FrozenClock())
        metrics = create_shared_metrics(3)
        yield Parent(tmp_path, listener, log, metrics)
        log.close()
        os.close(metrics)
    for number, handler in before.items():
        signal.signal(number, handler)


def is_alive(process_id):
    """Whether a child process runs; a reaped one does not."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


UNTIL_STOP = "while read line; do echo $slot $line >> lines; [ $line = stop ] && break; done; echo $slot >> ended"
AFTER_CONFIGURATION = "read configuration; "


def test_ready_is_announced_once_all_workers_are_ready_and_stop_reaches_all(parent):
    parent.run(
        AFTER_CONFIGURATION + READY + UNTIL_STOP,
        workers=3,
        signals=[(signal.SIGTERM, lambda: parent.ready)],
    )
    assert parent.ready == 1
    assert sorted(parent.noted("lines")) == ["0 stop", "1 stop", "2 stop"]
    assert sorted(parent.noted("ended")) == ["0", "1", "2"], "each worker ended by itself"
    assert len(parent.started) == 3
    assert parent.events("worker exited") == []


def test_ready_is_not_announced_before_the_last_worker_is_ready(parent):
    """Slot 1 reports last, once the test has seen that the others have reported."""
    wait = "[ $slot = 1 ] && while [ ! -e go ]; do sleep 0.01; done; "
    told_early = []

    def others_have_reported():
        if len(parent.noted("reported")) < 2:
            return False
        told_early.append(parent.ready)
        (parent.folder / "go").touch()
        return True

    parent.run(
        AFTER_CONFIGURATION + wait + READY + "echo $slot >> reported; " + UNTIL_STOP,
        workers=3,
        signals=[(signal.SIGTERM, lambda: others_have_reported() and wait_for(lambda: parent.ready))],
    )
    assert told_early == [0]
    assert parent.ready == 1


def test_a_hangup_makes_every_worker_reload_the_certificate(parent):
    parent.run(
        AFTER_CONFIGURATION + READY + UNTIL_STOP,
        signals=[
            (signal.SIGHUP, lambda: parent.ready),
            (signal.SIGTERM, lambda: len(parent.noted("lines")) == 2),
        ],
    )
    assert sorted(parent.noted("lines")) == ["0 certificate", "0 stop", "1 certificate", "1 stop"]


def test_a_worker_that_exits_is_restarted_in_its_slot(parent):
    """The first six starts exit with code 7, each after all are ready for the first time."""
    once_all_are_ready = "while [ ! -e ready ]; do sleep 0.01; done; "
    exit_at_first = "[ $(wc -l < exits) -lt 6 ] && { echo $slot >> exits; exit 7; }; "
    (parent.folder / "exits").touch()
    parent.run(
        AFTER_CONFIGURATION + READY + once_all_are_ready + exit_at_first + "echo $slot >> serving; " + UNTIL_STOP,
        on_ready=(parent.folder / "ready").touch,
        signals=[(signal.SIGTERM, lambda: len(parent.noted("serving")) == 2)],
    )
    assert sorted(parent.noted("serving")) == ["0", "1"], "both slots are taken again"
    exits = parent.events("worker exited")
    assert len(exits) == len(parent.noted("exits")) == len(parent.started) - 2
    assert {line["exit_code"] for line in exits} == {7}
    assert {line["pid"] for line in exits} < set(parent.started)
    delays = [line["restart_seconds"] for line in exits]
    assert delays == [0.01 * 2**number for number in range(len(exits))], "each exit in a row doubles the delay"


def test_the_gauges_of_a_worker_that_exited_are_cleared(parent):
    metrics = SharedMetrics(parent.metrics)
    for slot in (0, 1):
        metrics.meter(slot).show(connections=5)
    fall_once = "while [ ! -e ready ]; do sleep 0.01; done; [ $slot = 1 ] && [ ! -e fell ] && { touch fell; exit 1; }; "
    parent.run(
        AFTER_CONFIGURATION + READY + fall_once + "echo $slot >> serving; " + UNTIL_STOP,
        on_ready=(parent.folder / "ready").touch,
        signals=[
            (signal.SIGTERM, lambda: len(parent.noted("serving")) == 2 and not metrics.slots[1].value("heartbeat"))
        ],
    )
    assert len(parent.started) == 3


@pytest.mark.parametrize("stray", ["echo hello", r"printf '\377\n'", "echo '{}'", "head -c 200000 /dev/zero; echo"])
def test_a_line_that_is_no_report_changes_nothing(parent, stray):
    """The exit of a worker is still noticed: both are started a second time."""
    exit_at_first = "[ $(wc -l < exits) -lt 2 ] && { echo $slot >> exits; exit 7; }; "
    once_all_are_ready = "while [ ! -e ready ]; do sleep 0.01; done; "
    (parent.folder / "exits").touch()
    parent.run(
        f"{AFTER_CONFIGURATION}{stray}; {READY}{stray}; {once_all_are_ready}{exit_at_first}"
        f"echo $slot >> serving; {UNTIL_STOP}",
        on_ready=(parent.folder / "ready").touch,
        signals=[(signal.SIGTERM, lambda: len(parent.noted("serving")) == 2)],
    )
    assert parent.ready == 1
    assert sorted(parent.noted("serving")) == ["0", "1"]
    assert len(parent.events("worker printed a line")) >= 2 * len(parent.started)


def test_a_worker_that_cannot_start_ends_the_others(parent):
    refuse = """[ $slot = 0 ] && { echo '{"ready":false,"message":"no","hint":"yes"}'; exit 2; }; """
    with pytest.raises(ConfigurationError) as refused:
        parent.run(AFTER_CONFIGURATION + refuse + UNTIL_STOP)
    assert (refused.value.message, refused.value.hint) == ("no", "yes")
    assert parent.ready == 0
    assert parent.noted("ended") == ["1"], "the other worker was told to stop, and did"
    assert [line["message"] for line in parent.events("worker cannot start")] == ["no"]


def test_a_worker_that_exits_while_it_starts_is_not_restarted(parent):
    with pytest.raises(ConfigurationError, match="exited with code 7"):
        parent.run("exit 7")
    assert parent.ready == 0
    assert len(parent.started) <= 2


def test_a_worker_that_does_not_stop_is_killed_after_the_grace_period(parent):
    parent.run(
        AFTER_CONFIGURATION + READY + "exec sleep 600",
        kill_after_seconds=0,
        shutdown_seconds_max=0.1,
        signals=[(signal.SIGTERM, lambda: parent.ready)],
    )
    assert parent.ready == 1
    assert len(parent.started) == 2
    assert not any(map(is_alive, parent.started))


def test_a_second_signal_kills_the_workers(parent):
    def all_have_the_stop_line():
        return len(parent.noted("lines")) == 2

    parent.run(
        AFTER_CONFIGURATION + READY + "read line; echo $line >> lines; exec sleep 600",
        signals=[(signal.SIGTERM, lambda: parent.ready), (signal.SIGINT, all_have_the_stop_line)],
    )
    assert parent.noted("lines") == ["stop", "stop"]
    assert len(parent.started) == 2
    assert not any(map(is_alive, parent.started))
