"""Operations on restore jobs: start, describe, list, complete (control plane 2.5, 2.6, 3.2).

Reading with a restore job is in `storage_jobs`, `chunks.read` and `objects.read`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import recovery_points, restore_jobs
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.catalog.rows.restore_jobs import RestoreJobRow
from cryostore.core.time import seconds
from cryostore.model.errors import (
    InvalidParameterValueException,
    InvalidRequestException,
    JobStateConflictException,
    ResourceNotFoundException,
)
from cryostore.model.restore_jobs import (
    CompleteRestoreJob,
    CompleteRestoreJobOutput,
    DescribeRestoreJob,
    DescribeRestoreJobOutput,
    ListRestoreJobs,
    ListRestoreJobsOutput,
    RestoreJobsListMember,
    StartRestoreJob,
    StartRestoreJobOutput,
)
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.operations.idempotency import arguments_digest, find_repeated
from cryostore.service.operations.pages import cut_page, requested_page, time_conditions
from cryostore.service.operations.text_maps import check_map
from cryostore.service.operations.vaults import vault_name


def start_restore_job(context: Context, operation: StartRestoreJob, caller: Caller) -> StartRestoreJobOutput:
    """Pin a recovery point, and return the id to read it with."""
    bytes_max = context.limits.restore_metadata_bytes_max
    check_map("Metadata", operation.metadata, bytes_max, InvalidParameterValueException)
    now_ms = context.clock()
    job_id = context.new_id()

    def work(transaction: Transaction) -> str:
        # Before the point is looked up: a repeated request is answered even if the point was deleted since.
        job = find_repeated(
            context, transaction, operation, job_id, lambda earlier: restore_jobs.find(transaction, earlier)
        )
        if job is None:
            job = _new_job(operation, _restorable(context, transaction, operation), job_id, now_ms)
            restore_jobs.insert(transaction, job)
        authorise(caller, operation.declaration.action, vault_name(transaction, job.vault_id))
        return job.job_id

    return StartRestoreJobOutput(restore_job_id=context.database.write(work))


def _restorable(context: Context, transaction: Transaction, operation: StartRestoreJob) -> PointRow:
    point_id = context.arns.point_id(operation.recovery_point_arn)
    point = recovery_points.find(transaction, point_id) if point_id else None
    if point is None:
        raise ResourceNotFoundException(f"Recovery point {operation.recovery_point_arn!a} does not exist.")
    if point.status not in ("COMPLETED", "PARTIAL", "EXPIRED"):
        raise InvalidRequestException(f"The recovery point is {point.status} and cannot be restored.")
    if operation.resource_type not in (None, point.resource_type):
        raise InvalidParameterValueException(
            f"ResourceType: {operation.resource_type}, but the recovery point is of {point.resource_type}"
        )
    return point


def _new_job(operation: StartRestoreJob, point: PointRow, job_id: str, now_ms: int) -> RestoreJobRow:
    assert point.segment is not None
    return RestoreJobRow(
        job_id=job_id,
        point_id=point.point_id,
        vault_id=point.vault_id,
        lineage_id=point.segment.lineage_id,
        generation=point.segment.generation,
        resource_arn=point.resource_arn,
        resource_type=point.resource_type,
        role_arn=operation.iam_role_arn,
        status="PENDING",
        status_message=None,
        metadata=msgspec.json.encode(operation.metadata).decode(),
        created_ms=now_ms,
        completed_ms=None,
        active_ms=now_ms,
        point_created_ms=point.created_ms,
        size_bytes=point.size_bytes,
        created_resource_arn=None,
        completion_digest=None,
    )


def find_restore_job(transaction: Transaction, job_id: str) -> RestoreJobRow:
    """The restore job with this id. Raises ResourceNotFoundException."""
    if (job := restore_jobs.find(transaction, job_id.upper())) is None:
        raise ResourceNotFoundException(f"Restore job {job_id!a} does not exist.")
    return job


def describe_restore_job(context: Context, operation: DescribeRestoreJob, caller: Caller) -> DescribeRestoreJobOutput:
    """Describe a restore job."""

    def work(transaction: Transaction) -> dict[str, Any]:
        job = find_restore_job(transaction, operation.restore_job_id)
        name = vault_name(transaction, job.vault_id)
        authorise(caller, operation.declaration.action, name)
        return _facts(context, name, job)

    return DescribeRestoreJobOutput(**context.database.read(work))


def list_restore_jobs(context: Context, operation: ListRestoreJobs, caller: Caller) -> ListRestoreJobsOutput:
    """List restore jobs, newest first."""
    authorise(caller, operation.declaration.action, None)
    page = requested_page(context, operation)
    nobodys = operation.by_parent_job_id or operation.by_restore_testing_plan_arn
    if nobodys or operation.by_account_id not in (None, "*", context.settings.account_id):
        return ListRestoreJobsOutput(restore_jobs=[])

    def work(transaction: Transaction) -> list[tuple[RestoreJobRow, str]]:
        rows = restore_jobs.page(
            transaction, conditions=_conditions(operation), before=page.after, limit=page.limit + 1
        )
        return [(row, vault_name(transaction, row.vault_id)) for row in rows]

    rows, token = cut_page(
        context, page, context.database.read(work), lambda item: (item[0].created_ms, item[0].job_id)
    )
    return ListRestoreJobsOutput(
        restore_jobs=[RestoreJobsListMember(**_facts(context, name, row)) for row, name in rows], next_token=token
    )


def _conditions(operation: ListRestoreJobs) -> dict[str, tuple[str, Any]]:
    wanted = {
        "status": ("status = :status", operation.by_status),
        "resource_type": ("resource_type = :resource_type", operation.by_resource_type),
        **time_conditions(
            operation.by_created_after,
            operation.by_created_before,
            operation.by_complete_after,
            operation.by_complete_before,
        ),
    }
    return {name: condition for name, condition in wanted.items() if condition[1] is not None}


def complete_restore_job(context: Context, operation: CompleteRestoreJob, caller: Caller) -> CompleteRestoreJobOutput:
    """End a job and unpin its recovery point. A repeated request gets the same answer."""
    digest = arguments_digest(operation, "restore_job_id")
    now_ms = context.clock()

    def work(transaction: Transaction) -> RestoreJobRow:
        job = find_restore_job(transaction, operation.restore_job_id)
        authorise(caller, operation.declaration.action, vault_name(transaction, job.vault_id))
        if job.completed_ms is None:
            restore_jobs.end(
                transaction,
                job.job_id,
                operation.status,
                now_ms=now_ms,
                status_message=operation.status_message,
                created_resource_arn=operation.created_resource_arn,
                completion_digest=digest,
            )
            if operation.status == "COMPLETED":
                recovery_points.set_restored(transaction, job.point_id, now_ms=now_ms)
        elif job.completion_digest != digest:
            raise JobStateConflictException(f"RestoreJobId: {job.job_id} is {job.status} already", state=job.status)
        return find_restore_job(transaction, job.job_id)

    job = context.database.write(work)
    return CompleteRestoreJobOutput(
        restore_job_id=job.job_id, status=operation.status, completion_date=seconds(job.completed_ms or now_ms)
    )


def _facts(context: Context, name: str, job: RestoreJobRow) -> dict[str, Any]:
    return {
        "account_id": context.settings.account_id,
        "restore_job_id": job.job_id,
        "recovery_point_arn": context.arns.point(job.point_id),
        "source_resource_arn": job.resource_arn,
        "backup_vault_arn": context.arns.vault(name),
        "creation_date": seconds(job.created_ms),
        "completion_date": None if job.completed_ms is None else seconds(job.completed_ms),
        "status": job.status,
        "status_message": job.status_message,
        "percent_done": "100.0" if job.status == "COMPLETED" else "0.0",
        "backup_size_in_bytes": job.size_bytes,
        "iam_role_arn": job.role_arn,
        "created_resource_arn": job.created_resource_arn,
        "resource_type": job.resource_type,
        "recovery_point_creation_date": seconds(job.point_created_ms),
        "is_parent": False,
    }
