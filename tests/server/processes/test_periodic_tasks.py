"""Periodic tasks: they are repeated, survive failures, and stop when told to."""

from __future__ import annotations

import os
import threading

from cryostore.core.time import FrozenClock
from cryostore.server.monitoring.log import Log
from cryostore.server.processes.periodic_tasks import PeriodicTasks


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
        calls[0].join(10)  # leaving waits for a period alone, which is a thousandth of a second here
        log.close()
    assert not calls[0].is_alive()
    assert (tmp_path / "log").read_text().count("maintenance failed") == len(calls)
