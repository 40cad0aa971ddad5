"""StartBackupJob: open a job and the recovery point that it will become (control plane 2.5, 2.6)."""

from __future__ import annotations

import re

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import jobs, recovery_points
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.core.time import MINUTE_MS, seconds
from cryostore.model.errors import (
    InvalidParameterValueException,
    ResourceNotFoundException,
)
from cryostore.model.jobs import (
    Lifecycle,
    StartBackupJob,
    StartBackupJobOutput,
)
from cryostore.service.access import authorise
from cryostore.service.arns import resource_type
from cryostore.service.context import Caller, Context
from cryostore.service.lineages import HEARTBEAT_SECONDS
from cryostore.service.operations.idempotency import find_repeated
from cryostore.service.operations.vaults import check_tags, vault_by_name

COLD_STORAGE_DAYS_MIN = 90
BASES = {"latest": "LATEST", "none": "NONE"}
OPTIONS = ("IncrementalBase", "CommitOnObject", "WindowsVSS", HEARTBEAT_SECONDS)
OPTION_PATTERN = re.compile(r"[a-zA-Z0-9\-_.]{1,50}", re.ASCII)
HEARTBEAT_SECONDS_MIN = 10
HEARTBEAT_SECONDS_MAX = 3600


def start_backup_job(context: Context, operation: StartBackupJob, caller: Caller) -> StartBackupJobOutput:
    """Open a job and the recovery point that it will become, which is listed as CREATING."""
    authorise(caller, operation.declaration.action, operation.backup_vault_name)
    _check_start(context, operation)
    now_ms = context.clock()
    job_id, point_id = context.new_id(), context.new_id()

    def work(transaction: Transaction) -> JobRow:
        vault = vault_by_name(transaction, operation.backup_vault_name)
        earlier = find_repeated(context, transaction, operation, job_id, lambda answer: jobs.find(transaction, answer))
        if earlier is not None:
            return earlier
        job = _new_job(context, transaction, operation, vault.vault_id, job_id, point_id, now_ms)
        jobs.insert(transaction, job)
        recovery_points.insert(transaction, _new_point(operation, job))
        return job

    job = context.database.write(work)
    return StartBackupJobOutput(
        backup_job_id=job.job_id,
        recovery_point_arn=context.arns.point(job.point_id),
        creation_date=seconds(job.created_ms),
        is_parent=False,
    )


def _check_start(context: Context, operation: StartBackupJob) -> None:
    check_tags("RecoveryPointTags", operation.recovery_point_tags)
    check_lifecycle(operation.lifecycle)
    if operation.logically_air_gapped_backup_vault_arn:
        raise InvalidParameterValueException("LogicallyAirGappedBackupVaultArn: not supported by this server")
    if operation.index == "ENABLED":
        raise InvalidParameterValueException("Index: 'ENABLED' is not supported by this server")
    least = context.settings.start_window_minutes_min
    if operation.start_window_minutes is not None and operation.start_window_minutes < least:
        raise InvalidParameterValueException(
            f"StartWindowMinutes: {operation.start_window_minutes} must be at least {least}"
        )
    for name, value in (operation.backup_options or {}).items():
        if name not in OPTIONS:
            raise InvalidParameterValueException(f"BackupOptions: {name!a} must be one of {', '.join(OPTIONS)}")
        if not OPTION_PATTERN.fullmatch(value):
            raise InvalidParameterValueException(f"BackupOptions.{name}: {value!a} must match {OPTION_PATTERN.pattern}")
        if name == HEARTBEAT_SECONDS:
            _check_heartbeat(value)


def _check_heartbeat(value: str) -> None:
    if not value.isdecimal() or not HEARTBEAT_SECONDS_MIN <= int(value) <= HEARTBEAT_SECONDS_MAX:
        raise InvalidParameterValueException(
            f"BackupOptions.{HEARTBEAT_SECONDS}: {value!a} must be a whole number of seconds from"
            f" {HEARTBEAT_SECONDS_MIN} to {HEARTBEAT_SECONDS_MAX}"
        )


def check_lifecycle(lifecycle: Lifecycle | None) -> None:
    """Raise InvalidParameterValueException for a lifecycle that contradicts itself."""
    if lifecycle is None:
        return
    if lifecycle.delete_after_event is not None:
        raise InvalidParameterValueException("Lifecycle.DeleteAfterEvent: not valid as an input")
    cold, delete = lifecycle.move_to_cold_storage_after_days, lifecycle.delete_after_days
    if cold is not None and delete is not None and delete < cold + COLD_STORAGE_DAYS_MIN:
        raise InvalidParameterValueException(
            f"Lifecycle.DeleteAfterDays: {delete} must be at least MoveToColdStorageAfterDays + {COLD_STORAGE_DAYS_MIN}"
        )


def _new_job(
    context: Context,
    transaction: Transaction,
    operation: StartBackupJob,
    vault_id: int,
    job_id: str,
    point_id: str,
    now_ms: int,
) -> JobRow:
    options = operation.backup_options or {}
    wanted = options.get("IncrementalBase", "latest")
    start_window = operation.start_window_minutes or context.settings.start_window_minutes
    complete_window = operation.complete_window_minutes or context.settings.complete_window_minutes
    return JobRow(
        job_id=job_id,
        vault_id=vault_id,
        point_id=point_id,
        resource_arn=operation.resource_arn,
        resource_type=resource_type(operation.resource_arn),
        resource_name=None,
        role_arn=operation.iam_role_arn,
        state="CREATED",
        status_message=None,
        message_category=None,
        created_ms=now_ms,
        initiated_ms=None,
        start_by_ms=now_ms + start_window * MINUTE_MS,
        complete_by_ms=now_ms + complete_window * MINUTE_MS,
        completed_ms=None,
        active_ms=now_ms,
        lifecycle=msgspec.json.encode(operation.lifecycle).decode() if operation.lifecycle else None,
        options=msgspec.json.encode(options).decode(),
        base_selection=BASES.get(wanted, "EXPLICIT"),
        base_point_id=None if wanted in BASES else _explicit_base(transaction, operation, vault_id, wanted),
        lineage_id=None,
        generation=None,
        revision=0,
        bytes_transferred=0,
        size_bytes=0,
        commit_digest=None,
    )


def _explicit_base(transaction: Transaction, operation: StartBackupJob, vault_id: int, wanted: str) -> str:
    point = recovery_points.find(transaction, wanted.upper())
    if point is None or point.vault_id != vault_id or point.status != "COMPLETED":
        raise ResourceNotFoundException(f"BackupOptions.IncrementalBase: {wanted} is no recovery point of this vault")
    if point.resource_arn != operation.resource_arn and point.resource_type != resource_type(operation.resource_arn):
        raise InvalidParameterValueException(
            f"BackupOptions.IncrementalBase: {wanted} is of another kind of resource, {point.resource_type}"
        )
    return point.point_id


def _new_point(operation: StartBackupJob, job: JobRow) -> PointRow:
    return PointRow(
        point_id=job.point_id,
        vault_id=job.vault_id,
        job_id=job.job_id,
        lineage_id=None,
        generation=None,
        resource_arn=job.resource_arn,
        resource_type=job.resource_type,
        resource_name=None,
        role_arn=job.role_arn,
        status="CREATING",
        status_message=None,
        created_ms=job.created_ms,
        initiated_ms=None,
        completed_ms=None,
        last_restore_ms=None,
        size_bytes=0,
        object_count=0,
        lifecycle=job.lifecycle,
        restore_metadata="{}",
        tags=msgspec.json.encode(operation.recovery_point_tags or {}).decode(),
    )
