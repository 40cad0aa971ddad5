"""DescribeBackupJob, ListBackupJobs (control plane 2.5) and GetIncrementalBaseBackup (control plane 3.2)."""

from __future__ import annotations

from typing import Any

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import jobs, recovery_points, vaults
from cryostore.catalog.rows.jobs import JobRow
from cryostore.core.time import seconds
from cryostore.model.errors import JobStateConflictException
from cryostore.model.jobs import (
    BackupJob,
    DescribeBackupJob,
    DescribeBackupJobOutput,
    GetIncrementalBaseBackup,
    GetIncrementalBaseBackupOutput,
    Lifecycle,
    ListBackupJobs,
    ListBackupJobsOutput,
)
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.lineages import start_job
from cryostore.service.operations.damage import find_damaged_objects
from cryostore.service.operations.jobs.lookup import authorised_job, find_job
from cryostore.service.operations.pages import cut_page, requested_page, time_conditions
from cryostore.service.operations.text_maps import parse_map
from cryostore.service.operations.vaults import vault_name

ALL_CATEGORIES = ("*", "AGGREGATE_ALL")
"""The values of ByMessageCategory that stand for any category."""
BASE_SUFFIX = "-BASE"
"""Appended to the id of a backup job, it is the storage job id that reads the job's base."""


def describe_backup_job(context: Context, operation: DescribeBackupJob, caller: Caller) -> DescribeBackupJobOutput:
    """Describe a backup job."""

    def work(transaction: Transaction) -> dict[str, Any]:
        job = find_job(transaction, operation.backup_job_id)
        name = vault_name(transaction, job.vault_id)
        authorise(caller, operation.declaration.action, name)
        return _facts(context, name, job)

    return DescribeBackupJobOutput(**context.database.read(work))


def list_backup_jobs(context: Context, operation: ListBackupJobs, caller: Caller) -> ListBackupJobsOutput:
    """List backup jobs of the last 30 days (`listed_jobs_ms`), newest first."""
    authorise(caller, operation.declaration.action, operation.by_backup_vault_name)
    page = requested_page(context, operation)
    if operation.by_parent_job_id or operation.by_account_id not in (None, "*", context.settings.account_id):
        return ListBackupJobsOutput(backup_jobs=[])

    def work(transaction: Transaction) -> list[tuple[JobRow, str]]:
        conditions = _conditions(context, transaction, operation)
        rows = jobs.page(transaction, conditions=conditions, before=page.after, limit=page.limit + 1)
        return [(row, vault_name(transaction, row.vault_id)) for row in rows]

    rows, token = cut_page(
        context, page, context.database.read(work), lambda item: (item[0].created_ms, item[0].job_id)
    )
    return ListBackupJobsOutput(
        backup_jobs=[BackupJob(**_facts(context, name, row)) for row, name in rows], next_token=token
    )


def _conditions(context: Context, transaction: Transaction, operation: ListBackupJobs) -> dict[str, tuple[str, Any]]:
    vault = operation.by_backup_vault_name and vaults.by_name(transaction, operation.by_backup_vault_name)
    listed_from_ms = context.clock() - context.settings.listed_jobs_ms
    category = None if operation.by_message_category in ALL_CATEGORIES else operation.by_message_category
    wanted: dict[str, tuple[str, Any]] = {
        "listed_from_ms": ("created_ms >= :listed_from_ms", listed_from_ms),
        "resource_arn": ("resource_arn = :resource_arn", operation.by_resource_arn),
        "state": ("state = :state", operation.by_state),
        "resource_type": ("resource_type = :resource_type", operation.by_resource_type),
        "category": ("message_category = :category", category),
        **time_conditions(
            operation.by_created_after,
            operation.by_created_before,
            operation.by_complete_after,
            operation.by_complete_before,
        ),
    }
    if operation.by_backup_vault_name:
        wanted["vault_id"] = ("vault_id = :vault_id", vault.vault_id if vault else -1)
    return {name: condition for name, condition in wanted.items() if condition[1] is not None}


def _facts(context: Context, name: str, job: JobRow) -> dict[str, Any]:
    options = msgspec.json.decode(job.options, type=dict[str, str])
    return {
        "account_id": context.settings.account_id,
        "backup_job_id": job.job_id,
        "backup_vault_name": name,
        "backup_vault_arn": context.arns.vault(name),
        "vault_type": "BACKUP_VAULT",
        "recovery_point_arn": context.arns.point(job.point_id),
        "recovery_point_lifecycle": msgspec.json.decode(job.lifecycle, type=Lifecycle) if job.lifecycle else None,
        "is_encrypted": True,
        "resource_arn": job.resource_arn,
        "resource_type": job.resource_type,
        "resource_name": job.resource_name,
        "iam_role_arn": job.role_arn,
        "creation_date": seconds(job.created_ms),
        "initiation_date": None if job.initiated_ms is None else seconds(job.initiated_ms),
        "completion_date": None if job.completed_ms is None else seconds(job.completed_ms),
        "expected_completion_date": None,
        "start_by": seconds(job.start_by_ms),
        "state": job.state,
        "status_message": job.status_message,
        "message_category": job.message_category,
        "percent_done": "100.0" if job.state == "COMPLETED" else "0.0",
        "backup_size_in_bytes": job.size_bytes,
        "bytes_transferred": job.bytes_transferred,
        "backup_options": options or None,
        "backup_type": "Incremental" if job.base_point_id else "Full",
        "is_parent": False,
    }


def get_incremental_base_backup(
    context: Context, operation: GetIncrementalBaseBackup, caller: Caller
) -> GetIncrementalBaseBackupOutput:
    """Start the job if it waits, which chooses and pins its base, and return the base."""
    job = authorised_job(context, operation.backup_job_id, operation.declaration.action, caller)
    if job.completed_ms is None:
        job = start_job(context, job)
    if job.state != "RUNNING":
        raise JobStateConflictException(f"BackupJobId: {job.job_id} is {job.state}", state=job.state)
    base_id = job.base_point_id
    base = context.database.read(lambda transaction: recovery_points.find(transaction, base_id)) if base_id else None
    if base is None:
        return GetIncrementalBaseBackupOutput(backup_job_id=job.job_id, base_selection="NONE")
    damaged = find_damaged_objects(context, base)
    return GetIncrementalBaseBackupOutput(
        backup_job_id=job.job_id,
        base_selection="EXPLICIT" if job.base_selection == "EXPLICIT" else "LATEST",
        base_recovery_point_arn=context.arns.point(base.point_id),
        base_backup_job_id=base.job_id,
        base_creation_date=seconds(base.created_ms),
        object_count=base.object_count,
        base_restore_metadata=parse_map(base.restore_metadata),
        storage_job_id=job.job_id + BASE_SUFFIX,
        damaged_object_count=damaged.count or None,
        damaged_objects=damaged.names or None,
    )
