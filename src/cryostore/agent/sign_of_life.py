"""Telling the store that a job goes on while nothing is sent: a stream may pause, a disk may hold nothing new."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cryostore.core.companion import companion
from cryostore.core.errors import CryostoreError
from cryostore.model.operation import Call
from cryostore.model.restores import ListObjects

SECONDS_BETWEEN = 300.0


@contextmanager
def alive(call: Call, storage_job_id: str, seconds_between: float = SECONDS_BETWEEN) -> Iterator[None]:
    """While the context lasts, ask the job for something small now and then. A failure shows where bytes are sent."""

    def run(ended: threading.Event) -> None:
        while not ended.wait(seconds_between):
            with suppress(CryostoreError):
                call.call(ListObjects(storage_job_id=storage_job_id, max_results=1))

    with companion("sign of life", run):
        yield
