"""What AWS Backup's operations on backup jobs mean (control plane 2.5, 2.6). Their commit: `commits`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import idempotency, jobs, lineages, recovery_points, vaults
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.core.time import MINUTE_MS, milliseconds, seconds
from cryostore.model.errors import (
    InvalidParameterValueException,
    InvalidRequestException,
    ResourceNotFoundException,
)
from cryostore.model.jobs import (
    BackupJob,
    DescribeBackupJob,
    DescribeBackupJobOutput,
    Lifecycle,
    ListBackupJobs,
    ListBackupJobsOutput,
    StartBackupJob,
    StartBackupJobOutput,
    StopBackupJob,
)
from cryostore.model.operation import Nothing, Operation
from cryostore.model.restore_jobs import StartRestoreJob
from cryostore.service.access import authorise
from cryostore.service.arns import resource_type
from cryostore.service.context import Caller, Context
from cryostore.service.lineages.ended_jobs import delete_uploads, end_job, roll_back_job
from cryostore.service.lineages.start_job import HEARTBEAT_SECONDS
from cryostore.service.operations.pages import asked, cut
from cryostore.service.operations.vaults import check_tags, vault_by_name, vault_name

ALL_CATEGORIES = ("*", "AGGREGATE_ALL")
"""What ByMessageCategory says for any category."""
COLD_STORAGE_DAYS_MIN = 90
BASES = {"latest": "LATEST", "none": "NONE"}
OPTIONS = ("IncrementalBase", "CommitOnObject", "WindowsVSS", HEARTBEAT_SECONDS)
OPTION_PATTERN = re.compile(r"[a-zA-Z0-9\-_.]{1,50}", re.ASCII)
HEARTBEAT_SECONDS_MIN = 10
HEARTBEAT_SECONDS_MAX = 3600
CLEAN_BATCHES_MAX = 20
Started = TypeVar("Started")


def start_backup_job(context: Context, operation: StartBackupJob, caller: Caller) -> StartBackupJobOutput:
    """Open a job and the recovery point it will become, visible as CREATING."""
    authorise(caller, operation.declaration.action, operation.backup_vault_name)
    _check_start(context, operation)
    now_ms = context.clock()
    job_id, point_id = context.new_id(), context.new_id()

    def work(transaction: Transaction) -> JobRow:
        vault = vault_by_name(transaction, operation.backup_vault_name)
        earlier = repeated(context, transaction, operation, job_id, lambda answer: jobs.find(transaction, answer))
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
    """Raise InvalidParameterValueException for days that contradict each other."""
    if lifecycle is None:
        return
    if lifecycle.delete_after_event is not None:
        raise InvalidParameterValueException("Lifecycle.DeleteAfterEvent: not valid as an input")
    cold, delete = lifecycle.move_to_cold_storage_after_days, lifecycle.delete_after_days
    if cold is not None and delete is not None and delete < cold + COLD_STORAGE_DAYS_MIN:
        raise InvalidParameterValueException(
            f"Lifecycle.DeleteAfterDays: {delete} must be at least MoveToColdStorageAfterDays + {COLD_STORAGE_DAYS_MIN}"
        )


def repeated(
    context: Context,
    transaction: Transaction,
    operation: StartBackupJob | StartRestoreJob,
    answer: str,
    find: Callable[[str], Started | None],
) -> Started | None:
    """What an operation's idempotency token started already; None for a new one, which stands for `answer` from now on.

    What an earlier answer started is looked up with `find`; if it is gone for good, the token is new again. Raises
    InvalidParameterValueException if the token came with other arguments before.
    """
    if (token := operation.idempotency_token) is None:
        return None
    now_ms = context.clock()
    digest = arguments_digest(operation, "idempotency_token")
    name = type(operation).__name__
    earlier = idempotency.find(transaction, name, token, since_ms=now_ms - context.settings.idempotency_ms)
    if earlier is not None and earlier.request_digest != digest:
        raise InvalidParameterValueException("IdempotencyToken: was used before with other parameters")
    started = find(earlier.answer) if earlier is not None else None
    if started is None:
        idempotency.insert(transaction, name, token, request_digest=digest, answer=answer, now_ms=now_ms)
    return started


def arguments_digest(operation: Operation[Any], *left_out: str) -> bytes:
    """A digest of a call's arguments, the same for the same arguments on any server."""
    arguments = {name: value for name, value in msgspec.structs.asdict(operation).items() if name not in left_out}
    return hashlib.sha256(msgspec.json.encode(arguments, order="deterministic")).digest()


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


def find_job(transaction: Transaction, job_id: str) -> JobRow:
    """The backup job with this id. Raises ResourceNotFoundException."""
    if (job := jobs.find(transaction, job_id.upper())) is None:
        raise no_job(job_id)
    return job


def no_job(job_id: str) -> ResourceNotFoundException:
    """The error for a backup job that is not there."""
    return ResourceNotFoundException(f"Backup job {job_id!a} does not exist.")


def describe_backup_job(context: Context, operation: DescribeBackupJob, caller: Caller) -> DescribeBackupJobOutput:
    """Tell what is known of a job."""

    def work(transaction: Transaction) -> dict[str, Any]:
        job = find_job(transaction, operation.backup_job_id)
        name = vault_name(transaction, job.vault_id)
        authorise(caller, operation.declaration.action, name)
        return _facts(context, name, job)

    return DescribeBackupJobOutput(**context.database.read(work))


def list_backup_jobs(context: Context, operation: ListBackupJobs, caller: Caller) -> ListBackupJobsOutput:
    """List jobs of the last 30 days, newest first."""
    authorise(caller, operation.declaration.action, operation.by_backup_vault_name)
    page = asked(context, operation)
    if operation.by_parent_job_id or operation.by_account_id not in (None, "*", context.settings.account_id):
        return ListBackupJobsOutput(backup_jobs=[])

    def work(transaction: Transaction) -> list[tuple[JobRow, str]]:
        conditions = _conditions(context, transaction, operation)
        rows = jobs.page(transaction, conditions=conditions, before=page.after, limit=page.limit + 1)
        return [(row, vault_name(transaction, row.vault_id)) for row in rows]

    rows, token = cut(context, page, context.database.read(work), lambda item: (item[0].created_ms, item[0].job_id))
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
        **times(
            operation.by_created_after,
            operation.by_created_before,
            operation.by_complete_after,
            operation.by_complete_before,
        ),
    }
    if operation.by_backup_vault_name:
        wanted["vault_id"] = ("vault_id = :vault_id", vault.vault_id if vault else -1)
    return {name: condition for name, condition in wanted.items() if condition[1] is not None}


def times(
    created_after: float | None,
    created_before: float | None,
    complete_after: float | None,
    complete_before: float | None,
) -> dict[str, tuple[str, int | None]]:
    """The conditions of a list's time filters."""
    filters = {
        "created_after": ("created_ms >= :created_after", created_after),
        "created_before": ("created_ms < :created_before", created_before),
        "complete_after": ("completed_ms >= :complete_after", complete_after),
        "complete_before": ("completed_ms < :complete_before", complete_before),
    }
    return {name: (clause, None if value is None else milliseconds(value)) for name, (clause, value) in filters.items()}


def stop_backup_job(context: Context, operation: StopBackupJob, caller: Caller) -> Nothing:
    """Fence a job and take back what it wrote. A stopped job stays stopped; a finished one cannot be."""

    def work(transaction: Transaction) -> JobRow:
        job = find_job(transaction, operation.backup_job_id)
        authorise(caller, operation.declaration.action, vault_name(transaction, job.vault_id))
        if job.state in ("CREATED", "PENDING"):
            end_job(transaction, job, "ABORTED", "The job was stopped.", "Aborted", now_ms=context.clock())
        elif job.state == "RUNNING" and job.segment is not None:
            jobs.abort(transaction, job.job_id, "The job was stopped.")
            lineages.set_dirty(transaction, job.segment)
        elif job.state not in ("ABORTING", "ABORTED"):
            raise InvalidRequestException(f"Backup job {job.job_id} is {job.state} and cannot be stopped.")
        return job

    job = context.database.write(work)
    if job.segment is not None:
        roll_back_job(context, job.segment, batches_max=CLEAN_BATCHES_MAX)
    delete_uploads(context, job.job_id)
    return Nothing()


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
