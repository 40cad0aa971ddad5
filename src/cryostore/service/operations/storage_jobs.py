"""Storage jobs: the jobs that a client reads from, and the tokens that they give out (Backup Storage B.8, B.9).

A storage job is a restore job, a backup job in progress (its current view), or the base of a backup job in progress.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from cryostore.catalog.database import Answer, Transaction
from cryostore.catalog.rows import jobs, lineages, objects, recovery_points, restore_jobs
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.objects import ObjectRow
from cryostore.core.time import MINUTE_MS
from cryostore.model.errors import IllegalArgumentException, ResourceNotFoundException
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.lineages import start_job
from cryostore.service.operations.jobs.describe import BASE_SUFFIX
from cryostore.service.operations.vaults import vault_name

TOUCH_MS = MINUTE_MS
"""A job that is read from gets its time of activity updated once in so many milliseconds at most."""
Touch = Callable[[Transaction], object]
OBJECT_TOKEN = struct.Struct("<q")


class StorageJob(NamedTuple):
    """The job and the segment that a storage job id stands for. The view of a `frozen` one cannot change."""

    job_id: str
    vault_id: int
    segment: Segment
    frozen: bool


def storage_job(context: Context, storage_job_id: str, action: str, caller: Caller) -> StorageJob:
    """The job to read from. Raises ResourceNotFoundException if it does not exist or has ended (B.8)."""
    return storage_job_with(context, storage_job_id, action, caller, lambda _transaction, _job: None)[0]


def storage_job_with(
    context: Context,
    storage_job_id: str,
    action: str,
    caller: Caller,
    look_up: Callable[[Transaction, StorageJob], Answer],
) -> tuple[StorageJob, Answer | None]:
    """The job, as `storage_job` gives it, and what `look_up` finds in the same snapshot.

    The second result is None for a backup job that was not yet started in that snapshot.
    """
    job_id = storage_job_id.upper()

    def work(transaction: Transaction) -> tuple[StorageJob | None, Touch | None, Answer | None]:
        job, touch = _find(context, transaction, job_id, action, caller)
        return job, touch, None if job is None else look_up(transaction, job)

    found, touch, answer = context.database.read(work)
    if found is None:  # a backup job that its first request starts
        job = context.database.read(lambda transaction: jobs.find(transaction, job_id))
        job = start_job(context, job) if job is not None else None
        if job is None or job.segment is None or job.state != "RUNNING":
            raise _no_job(storage_job_id)
        return StorageJob(job_id, job.vault_id, job.segment, frozen=False), None
    if touch is not None:
        context.database.write(touch)
    return found, answer


def _find(
    context: Context, transaction: Transaction, job_id: str, action: str, caller: Caller
) -> tuple[StorageJob | None, Touch | None]:
    """The storage job, None for a backup job that is not started; and the update of its time of activity, if due."""
    now_ms = context.clock()
    restore = restore_jobs.find(transaction, job_id)
    if restore is not None and restore.completed_ms is None:
        _authorise(transaction, caller, action, restore.vault_id)
        due = restore.status == "PENDING" or _touch_is_due(restore.active_ms, now_ms)
        sign: Touch = partial(restore_jobs.touch, job_id=job_id, now_ms=now_ms)
        return StorageJob(job_id, restore.vault_id, restore.segment, frozen=True), sign if due else None
    job = jobs.find(transaction, job_id.removesuffix(BASE_SUFFIX))
    if restore is not None or job is None or job.state not in ("CREATED", "PENDING", "RUNNING"):
        raise _no_job(job_id)
    _authorise(transaction, caller, action, job.vault_id)
    due = _touch_is_due(job.active_ms, now_ms)
    sign = partial(jobs.touch, job_id=job.job_id, bytes_transferred=0, now_ms=now_ms)
    touch = sign if due else None
    if not job_id.endswith(BASE_SUFFIX):
        found = None if job.segment is None else StorageJob(job_id, job.vault_id, job.segment, frozen=False)
        return found, touch
    base = recovery_points.find(transaction, job.base_point_id) if job.base_point_id else None
    if base is None or base.segment is None or job.state != "RUNNING":
        raise _no_job(job_id)
    return StorageJob(job_id, job.vault_id, base.segment, frozen=True), touch


def _touch_is_due(active_ms: int, now_ms: int) -> bool:
    """Whether the time of activity must be updated; always if it lies in the future."""
    return not 0 <= now_ms - active_ms <= TOUCH_MS


def _authorise(transaction: Transaction, caller: Caller, action: str, vault_id: int) -> None:
    if not caller.root:
        authorise(caller, action, vault_name(transaction, vault_id))


def _no_job(job_id: str) -> ResourceNotFoundException:
    return ResourceNotFoundException(f"StorageJobId: {job_id!a} is no restore job or backup job in progress")


def open_job_token(context: Context, kind: str, job_id: str, token: str, member: str) -> bytes:
    """The content of a token that this job gave out. Raises IllegalArgumentException, which names the `member`."""
    content = context.tokens.open(kind, job_id, token)
    if content is None:
        raise foreign_token_error(member)
    return content


def foreign_token_error(member: str) -> IllegalArgumentException:
    """The error for a token of another job or another kind."""
    return IllegalArgumentException(f"{member}: is not one that this job gave out for this request")


def find_object_of_token(context: Context, transaction: Transaction, job: StorageJob, token: str) -> ObjectRow:
    """The object of a token. Raises ResourceNotFoundException if it is no longer in the job's view."""
    (object_id,) = OBJECT_TOKEN.unpack(open_job_token(context, "object", job.job_id, token, "ObjectToken"))
    row = objects.by_id(transaction, object_id)
    if row is not None and not job.frozen:
        current = objects.find(transaction, lineages.view(transaction, job.segment), row.name)
        row = row if current is not None and current.object_id == object_id else None
    if row is None:
        raise ResourceNotFoundException("ObjectToken: the object is no longer in the job's view")
    return row
