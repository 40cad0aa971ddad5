"""Declarations of the operations on backup jobs.

Those of AWS Backup (control plane 2.5, 2.6), and the extensions that commit a job and return its base (3.2).
"""

from __future__ import annotations

from typing import Annotated, Literal

from cryostore.model.errors import (
    AccessDeniedException,
    IllegalArgumentException,
    InvalidParameterValueException,
    InvalidRequestException,
    JobStateConflictException,
    LimitExceededException,
    ResourceNotFoundException,
    RetryableException,
    ServiceInternalException,
    ServiceUnavailableException,
    ThrottlingException,
)
from cryostore.model.objects import BackupJobId
from cryostore.model.operation import (
    Api,
    IdempotencyToken,
    Label,
    Nothing,
    Operation,
    Output,
    Query,
    Sensitive,
    Shape,
    Timestamp,
    operation,
)
from cryostore.model.rules import INTEGER_MAX, Between, ChecksumText, Length, Pattern, Printable
from cryostore.model.vaults import READ_ERRORS, VAULT_NAME, MaxResults, NextToken, Tags

BackupJobState = Literal[
    "CREATED", "PENDING", "RUNNING", "ABORTING", "ABORTED", "COMPLETED", "FAILED", "EXPIRED", "PARTIAL"
]
RESOURCE_TYPE = r"[a-zA-Z0-9\-\_\.]{1,50}"
ROLE_ARN = r"arn:[^:]*:iam::\d{12}:role/.+"
ResourceArn = Annotated[str, Length(1, 2048), Pattern(r"arn:[^\x00-\x1f\x7f]+"), "What is backed up."]
ByResourceType = Annotated[str | None, Query("resourceType"), Pattern(RESOURCE_TYPE), "Only of this resource type."]
ByAccountId = Annotated[str | None, Query("accountId"), Pattern(r"[0-9]{12}|\*"), "Only of this account."]
ByCreatedBefore = Annotated[Timestamp | None, Query("createdBefore"), "Only created before this."]
ByCreatedAfter = Annotated[Timestamp | None, Query("createdAfter"), "Only created after this."]
ByCompleteBefore = Annotated[Timestamp | None, Query("completeBefore"), "Only completed before this."]
ByCompleteAfter = Annotated[Timestamp | None, Query("completeAfter"), "Only completed after this."]
WindowMinutes = Annotated[int | None, Between(1, 52_560_000), "A window in minutes."]

JOB_ERRORS = (
    ResourceNotFoundException,
    IllegalArgumentException,
    AccessDeniedException,
    JobStateConflictException,
    ThrottlingException,
    RetryableException,
    ServiceInternalException,
    ServiceUnavailableException,
)

HEARTBEATS_MISSED_MAX = 3
"""Missed heartbeats (`HeartbeatSeconds`) after which the next job of the resource ends the silent one."""


class Lifecycle(Shape, frozen=True, kw_only=True):
    """Days from the creation of a recovery point to its move to cold storage, and to its deletion."""

    move_to_cold_storage_after_days: Annotated[int | None, Between(1, 36_500)] = None
    delete_after_days: Annotated[int | None, Between(1, 36_500)] = None
    opt_in_to_archive_for_supported_resources: bool | None = None
    delete_after_event: Literal["DELETE_AFTER_COPY"] | None = None


class StartBackupJobOutput(Output, frozen=True, kw_only=True):
    """The started job."""

    backup_job_id: str | None = None
    recovery_point_arn: str | None = None
    creation_date: Timestamp | None = None
    is_parent: bool | None = None


@operation(
    Api.BACKUP,
    "PUT",
    "/backup-jobs",
    output=StartBackupJobOutput,
    errors=(*READ_ERRORS, InvalidRequestException, LimitExceededException),
    action="backup:StartBackupJob",
)
class StartBackupJob(Operation[StartBackupJobOutput], frozen=True, kw_only=True):
    """Start an on-demand backup job for a resource. A request with the same IdempotencyToken gets the same answer."""

    backup_vault_name: Annotated[str, Pattern(VAULT_NAME), "The name of a backup vault."]
    logically_air_gapped_backup_vault_arn: Annotated[str | None, Length(0, 2048), "Not supported."] = None
    resource_arn: ResourceArn
    iam_role_arn: Annotated[str, Length(1, 2048), Pattern(ROLE_ARN), "The role to run as; stored and echoed."]
    idempotency_token: Annotated[
        str | None, IdempotencyToken(), Length(1, 1024), Printable(), "Identifies the request if it is repeated."
    ] = None
    start_window_minutes: WindowMinutes = None
    complete_window_minutes: WindowMinutes = None
    lifecycle: Annotated[Lifecycle | None, "The retention of the recovery point."] = None
    recovery_point_tags: Annotated[Tags | None, Sensitive(), Length(0, 50), "Tags of the recovery point."] = None
    backup_options: Annotated[dict[str, str] | None, Length(0, 50), "IncrementalBase, CommitOnObject."] = None
    index: Annotated[Literal["ENABLED", "DISABLED"] | None, "Whether to index the recovery point."] = None


class BackupJob(Shape, frozen=True, kw_only=True):
    """A backup job in a list."""

    account_id: str | None = None
    backup_job_id: str | None = None
    backup_vault_name: str | None = None
    backup_vault_arn: str | None = None
    vault_type: str | None = None
    vault_lock_state: str | None = None
    recovery_point_arn: str | None = None
    recovery_point_lifecycle: Lifecycle | None = None
    encryption_key_arn: str | None = None
    is_encrypted: bool | None = None
    resource_arn: str | None = None
    creation_date: Timestamp | None = None
    completion_date: Timestamp | None = None
    state: BackupJobState | None = None
    status_message: str | None = None
    percent_done: str | None = None
    backup_size_in_bytes: int | None = None
    iam_role_arn: str | None = None
    expected_completion_date: Timestamp | None = None
    start_by: Timestamp | None = None
    resource_type: str | None = None
    bytes_transferred: int | None = None
    backup_options: dict[str, str] | None = None
    backup_type: str | None = None
    is_parent: bool | None = None
    resource_name: str | None = None
    initiation_date: Timestamp | None = None
    message_category: str | None = None


class DescribeBackupJobOutput(Output, frozen=True, kw_only=True):
    """A backup job."""

    account_id: str | None = None
    backup_job_id: str | None = None
    backup_vault_name: str | None = None
    recovery_point_lifecycle: Lifecycle | None = None
    backup_vault_arn: str | None = None
    vault_type: str | None = None
    vault_lock_state: str | None = None
    recovery_point_arn: str | None = None
    encryption_key_arn: str | None = None
    is_encrypted: bool | None = None
    resource_arn: str | None = None
    creation_date: Timestamp | None = None
    completion_date: Timestamp | None = None
    state: BackupJobState | None = None
    status_message: str | None = None
    percent_done: str | None = None
    backup_size_in_bytes: int | None = None
    iam_role_arn: str | None = None
    resource_type: str | None = None
    bytes_transferred: int | None = None
    expected_completion_date: Timestamp | None = None
    start_by: Timestamp | None = None
    backup_options: dict[str, str] | None = None
    backup_type: str | None = None
    is_parent: bool | None = None
    resource_name: str | None = None
    initiation_date: Timestamp | None = None
    message_category: str | None = None


@operation(
    Api.BACKUP,
    "GET",
    "/backup-jobs/{backupJobId}",
    output=DescribeBackupJobOutput,
    errors=READ_ERRORS,
    action="backup:DescribeBackupJob",
)
class DescribeBackupJob(Operation[DescribeBackupJobOutput], frozen=True, kw_only=True):
    """Describe a backup job."""

    backup_job_id: Annotated[str, Label("backupJobId"), Length(1, 1024), "The backup job."]


class ListBackupJobsOutput(Output, frozen=True, kw_only=True):
    """A page of backup jobs."""

    backup_jobs: list[BackupJob]
    next_token: str | None = None


@operation(
    Api.BACKUP,
    "GET",
    "/backup-jobs/",
    output=ListBackupJobsOutput,
    errors=(InvalidParameterValueException, ServiceUnavailableException),
    action="backup:ListBackupJobs",
)
class ListBackupJobs(Operation[ListBackupJobsOutput], frozen=True, kw_only=True):
    """List backup jobs, newest first."""

    next_token: NextToken = None
    max_results: MaxResults = None
    by_resource_arn: Annotated[str | None, Query("resourceArn"), Length(1, 2048), "Only of this resource."] = None
    by_state: Annotated[BackupJobState | None, Query("state"), "Only in this state."] = None
    by_backup_vault_name: Annotated[
        str | None, Query("backupVaultName"), Pattern(VAULT_NAME), "Only into this vault."
    ] = None
    by_created_before: ByCreatedBefore = None
    by_created_after: ByCreatedAfter = None
    by_resource_type: ByResourceType = None
    by_account_id: ByAccountId = None
    by_complete_after: ByCompleteAfter = None
    by_complete_before: ByCompleteBefore = None
    by_parent_job_id: Annotated[str | None, Query("parentJobId"), Length(0, 1024), "Only children of this job."] = None
    by_message_category: Annotated[
        str | None, Query("messageCategory"), Length(0, 1024), "Only of this message category."
    ] = None


@operation(
    Api.BACKUP,
    "POST",
    "/backup-jobs/{backupJobId}",
    errors=(*READ_ERRORS, InvalidRequestException),
    action="backup:StopBackupJob",
)
class StopBackupJob(Operation[Nothing], frozen=True, kw_only=True):
    """Stop a backup job and discard its data. Stopping a stopped job changes nothing."""

    backup_job_id: Annotated[str, Label("backupJobId"), Length(1, 1024), "The backup job."]


class CommitBackupJobOutput(Output, frozen=True, kw_only=True):
    """The result of the job."""

    backup_job_id: str
    recovery_point_arn: str | None = None
    state: BackupJobState
    backup_size_in_bytes: int | None = None
    completion_date: Timestamp | None = None


@operation(
    Api.BACKUP_STORAGE,
    "PUT",
    "/backup-jobs/{jobId}/commit",
    output=CommitBackupJobOutput,
    errors=JOB_ERRORS,
    action="backup-storage:CommitBackupJob",
    status=202,
    extension=True,
)
class CommitBackupJob(Operation[CommitBackupJobOutput], frozen=True, kw_only=True):
    """End a backup job: make its view a recovery point, or fail the job. A repeated request gets the same answer."""

    backup_job_id: BackupJobId
    outcome: Annotated[Literal["COMPLETED", "FAILED"] | None, "COMPLETED (default), or FAILED: no point is made."] = (
        None
    )
    object_count: Annotated[
        int | None, Between(0, INTEGER_MAX), "Objects in the finished point, inherited ones included; checked."
    ] = None
    objects_checksum: Annotated[
        str | None, ChecksumText(), "SHA-256 over each object's name, a zero byte and its raw checksum, by name."
    ] = None
    objects_checksum_algorithm: Annotated[Literal["SUMMARY"] | None, "Algorithm of ObjectsChecksum."] = None
    resource_name: Annotated[str | None, Length(1, 1024), Printable(), "A name of the resource for people."] = None
    status_message: Annotated[str | None, Length(0, 2048), Printable(), "How it went, for people."] = None
    message_category: Annotated[str | None, Length(1, 256), Printable(), "How it went, for programs."] = None
    issue_count: Annotated[int | None, Between(0, INTEGER_MAX), "How much of the resource was skipped."] = None
    restore_metadata: Annotated[
        dict[str, str] | None,
        Sensitive(),
        Length(0, "restore_metadata_items_max"),
        "What a restore needs to know, given back by GetRecoveryPointRestoreMetadata.",
    ] = None
    discard_open_uploads: Annotated[bool | None, "Drop uploads that were not completed, rather than refuse."] = None
    commit_token: Annotated[
        str | None, IdempotencyToken(), Length(1, 1024), Printable(), "Identifies the request if it is repeated."
    ] = None


class GetIncrementalBaseBackupOutput(Output, frozen=True, kw_only=True):
    """The base of the job; only the first two members for a job without a base.

    The last two members are present if the base needs chunks that are known to be damaged: the number of its objects
    that need them, and the names of the first ones. A job that sends such bytes again heals the base, too.
    """

    backup_job_id: str
    base_selection: Literal["LATEST", "EXPLICIT", "NONE"]
    base_recovery_point_arn: str | None = None
    base_backup_job_id: str | None = None
    base_creation_date: Timestamp | None = None
    object_count: int | None = None
    base_restore_metadata: Annotated[dict[str, str] | None, Sensitive()] = None
    storage_job_id: str | None = None
    damaged_object_count: int | None = None
    damaged_objects: list[str] | None = None


@operation(
    Api.BACKUP_STORAGE,
    "GET",
    "/backup-jobs/{jobId}/incremental-base",
    output=GetIncrementalBaseBackupOutput,
    errors=JOB_ERRORS,
    action="backup-storage:GetIncrementalBaseBackup",
    extension=True,
)
class GetIncrementalBaseBackup(Operation[GetIncrementalBaseBackupOutput], frozen=True, kw_only=True):
    """Return the recovery point that the job starts from. The first call chooses and pins it."""

    backup_job_id: BackupJobId
