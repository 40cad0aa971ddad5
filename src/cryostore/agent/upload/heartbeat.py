"""Heartbeat of an open backup job: tells the store that the run is alive while it sends nothing else."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cryostore.core.errors import CryostoreError
from cryostore.core.threads import background_thread
from cryostore.model.jobs import HEARTBEATS_MISSED_MAX
from cryostore.model.objects import ListObjects
from cryostore.model.operation import Call

HEARTBEAT_SECONDS = 60
"""A run sends a request at least this often, while its server answers."""
OPTION_SECONDS_MAX = 3600


def heartbeat_option_seconds(wait_seconds: float) -> int:
    """The backup option `HeartbeatSeconds` of a run that waits up to `wait_seconds` for an unreachable server.

    Three intervals of this length are longer than a live run can be silent. Otherwise, when the server is back, another
    run could end the job of a run that still waits.
    """
    return min(HEARTBEAT_SECONDS + math.ceil(wait_seconds / HEARTBEATS_MISSED_MAX), OPTION_SECONDS_MAX)


@contextmanager
def heartbeat(call: Call, storage_job_id: str, seconds_between: float = HEARTBEAT_SECONDS / 2) -> Iterator[None]:
    """Send a small request for the job every `seconds_between` while the context lasts.

    Ignores errors: the run meets them when it sends bytes. The store expects a request within twice that time.
    """

    def run(ended: threading.Event) -> None:
        while not ended.wait(seconds_between):
            with suppress(CryostoreError):
                call.call(ListObjects(storage_job_id=storage_job_id, max_results=1))

    with background_thread("heartbeat", run):
        yield
