"""Heartbeat of an open backup job: the store learns that the agent lives while it sends nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cryostore.core.companion import companion
from cryostore.core.errors import CryostoreError
from cryostore.model.operation import Call
from cryostore.model.restores import ListObjects

HEARTBEAT_SECONDS = 60
"""A job of the agent promises one request at least this often (the backup option `HeartbeatSeconds`)."""


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
