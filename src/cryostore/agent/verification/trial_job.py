"""Trial job: writes a few KiB to a store, reads them back, and stops, so that no recovery point is made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from cryostore.agent.archive.recovery_points import ROLE_ARN
from cryostore.agent.small_object import store_small
from cryostore.client import pages
from cryostore.core.errors import CryostoreError
from cryostore.core.ids import NewId, random_id
from cryostore.model.chunks import GetChunk
from cryostore.model.jobs import StartBackupJob, StopBackupJob
from cryostore.model.operation import Call

RESOURCE_ARN = "arn:aws:cryo:::trial:{}"
OBJECT = "trial"
IDS = 100
"""The trial writes this many new ids, some KiB that no store has yet."""


def run_trial_job(call: Call, vault: str, new_id: NewId = random_id) -> None:
    """Write a few KiB into a vault, read them back, and stop the job. Garbage collection removes the bytes.

    Raises what the store raises, and CryostoreError if other bytes come back.
    """
    data = "".join(new_id() for _ in range(IDS)).encode()
    arn = RESOURCE_ARN.format(new_id())
    started = call.call(
        StartBackupJob(
            backup_vault_name=vault,
            resource_arn=arn,
            iam_role_arn=ROLE_ARN,
            backup_options={"IncrementalBase": "none"},
        )
    )
    job_id = started.backup_job_id or ""
    _run_and_finish(lambda: _write_and_read(call, job_id, data), lambda: call.call(StopBackupJob(backup_job_id=job_id)))


def _write_and_read(call: Call, job_id: str, data: bytes) -> None:
    store_small(call, job_id, OBJECT, data)
    found = b"".join(
        bytes(call.call(GetChunk(storage_job_id=job_id, chunk_token=chunk.chunk_token)).data.data)
        for each in pages.objects(call, job_id)
        for chunk in pages.chunks(call, job_id, each.object_token)
    )
    if found != data:
        raise CryostoreError("the store returned other bytes than were written", hint="do not rely on this store")


def _run_and_finish(work: Callable[[], object], end: Callable[[], object]) -> None:
    """Call `work`, and then `end` in any case. If both fail, the error of `work` is raised."""
    try:
        work()
    except BaseException:
        with suppress(CryostoreError):
            end()
        raise
    end()
