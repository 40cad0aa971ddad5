"""Heartbeat of an open backup job: the store learns that the agent lives while it sends nothing."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cryostore.core.companion import companion
from cryostore.core.errors import CryostoreError
from cryostore.model.jobs import HEARTBEATS_MISSED_MAX
from cryostore.model.objects import ListObjects
from cryostore.model.operation import Call

HEARTBEAT_SECONDS = 60
"""A run sends a request at least this often while its server answers."""
PROMISED_SECONDS_MAX = 3600


def promised_seconds(wait_seconds: float) -> int:
    """The backup option `HeartbeatSeconds` of a run that waits for so long for a server that is away.

    Three of them are longer than the run may be silent and still alive. Otherwise another run that starts when the
    server is back would end the job of a run that still waits.
    """
    return min(HEARTBEAT_SECONDS + math.ceil(wait_seconds / HEARTBEATS_MISSED_MAX), PROMISED_SECONDS_MAX)


@contextmanager
def alive(call: Call, storage_job_id: str, seconds_between: float = HEARTBEAT_SECONDS / 2) -> Iterator[None]:
    """Send the job a small request every `seconds_between` while the context lasts.

    Ignores errors: the run meets them where it sends bytes. A store needs a request within twice that time.
    """

    def run(ended: threading.Event) -> None:
        while not ended.wait(seconds_between):
            with suppress(CryostoreError):
                call.call(ListObjects(storage_job_id=storage_job_id, max_results=1))

    with companion("heartbeat", run):
        yield
