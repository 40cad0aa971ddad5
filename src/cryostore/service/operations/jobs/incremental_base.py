"""GetIncrementalBaseBackup: the recovery point that a job starts from (control plane 3.2)."""

from __future__ import annotations

from cryostore.catalog.rows import recovery_points
from cryostore.core.time import seconds
from cryostore.model.errors import JobStateConflictException
from cryostore.model.jobs import GetIncrementalBaseBackup, GetIncrementalBaseBackupOutput
from cryostore.service.context import Caller, Context
from cryostore.service.lineages.start_job import start_job
from cryostore.service.operations.damage import find_damaged_objects
from cryostore.service.operations.jobs.lookup import authorised_job
from cryostore.service.operations.text_maps import parse_map

BASE_SUFFIX = "-BASE"
"""Appended to the id of a backup job, it is the storage job id that reads the job's base."""


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
