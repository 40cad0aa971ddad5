"""Declarations of the operations on restore jobs.

Those of AWS Backup (control plane 2.5, 2.6), and the extension that completes a job (3.2).
"""

from __future__ import annotations

from typing import Annotated, Literal

from cryostore.model.errors import InvalidRequestException
from cryostore.model.jobs import (
    JOB_ERRORS,
    RESOURCE_TYPE,
    ROLE_ARN,
    ByAccountId,
    ByCompleteAfter,
    ByCompleteBefore,
    ByCreatedAfter,
    ByCreatedBefore,
    ByResourceType,
)
from cryostore.model.operation import (
    Api,
    IdempotencyToken,
    Label,
    Operation,
    Output,
    Query,
    Sensitive,
    Shape,
    Timestamp,
    operation,
)
from cryostore.model.rules import INTEGER_MAX, Between, Length, Pattern, Printable
from cryostore.model.vaults import READ_ERRORS, MaxResults, NextToken

RestoreJobStatus = Literal["PENDING", "RUNNING", "COMPLETED", "ABORTED", "FAILED"]


class StartRestoreJobOutput(Output, frozen=True, kw_only=True):
    """The started job; its id is the StorageJobId to read with."""

    restore_job_id: str | None = None


@operation(
    Api.BACKUP,
    "PUT",
    "/restore-jobs",
    output=StartRestoreJobOutput,
    errors=(*READ_ERRORS, InvalidRequestException),
    action="backup:StartRestoreJob",
)
class StartRestoreJob(Operation[StartRestoreJobOutput], frozen=True, kw_only=True):
    """Start to restore a recovery point. The point cannot be deleted until the job ends."""

    recovery_point_arn: Annotated[str, Length(1, 2048), "The recovery point."]
    metadata: Annotated[
        dict[str, str], Sensitive(), Length(0, "restore_metadata_items_max"), "What the restoring agent needs to know."
    ]
    iam_role_arn: Annotated[str | None, Length(1, 2048), Pattern(ROLE_ARN), "The role to run as; stored."] = None
    idempotency_token: Annotated[
        str | None, IdempotencyToken(), Length(1, 1024), Printable(), "Identifies the request if it is repeated."
    ] = None
    resource_type: Annotated[str | None, Pattern(RESOURCE_TYPE), "Must be the recovery point's type."] = None
    copy_source_tags_to_restored_resource: Annotated[bool | None, "Stored."] = None


class RestoreJobsListMember(Shape, frozen=True, kw_only=True):
    """A restore job in a list."""

    account_id: str | None = None
    restore_job_id: str | None = None
    recovery_point_arn: str | None = None
    source_resource_arn: str | None = None
    backup_vault_arn: str | None = None
    creation_date: Timestamp | None = None
    completion_date: Timestamp | None = None
    status: RestoreJobStatus | None = None
    status_message: str | None = None
    percent_done: str | None = None
    backup_size_in_bytes: int | None = None
    iam_role_arn: str | None = None
    created_resource_arn: str | None = None
    resource_type: str | None = None
    recovery_point_creation_date: Timestamp | None = None
    is_parent: bool | None = None


class DescribeRestoreJobOutput(Output, frozen=True, kw_only=True):
    """A restore job."""

    account_id: str | None = None
    restore_job_id: str | None = None
    recovery_point_arn: str | None = None
    source_resource_arn: str | None = None
    backup_vault_arn: str | None = None
    creation_date: Timestamp | None = None
    completion_date: Timestamp | None = None
    status: RestoreJobStatus | None = None
    status_message: str | None = None
    percent_done: str | None = None
    backup_size_in_bytes: int | None = None
    iam_role_arn: str | None = None
    created_resource_arn: str | None = None
    resource_type: str | None = None
    recovery_point_creation_date: Timestamp | None = None
    is_parent: bool | None = None


@operation(
    Api.BACKUP,
    "GET",
    "/restore-jobs/{restoreJobId}",
    output=DescribeRestoreJobOutput,
    errors=READ_ERRORS,
    action="backup:DescribeRestoreJob",
)
class DescribeRestoreJob(Operation[DescribeRestoreJobOutput], frozen=True, kw_only=True):
    """Describe a restore job."""

    restore_job_id: Annotated[str, Label("restoreJobId"), Length(1, 1024), "The restore job."]


class ListRestoreJobsOutput(Output, frozen=True, kw_only=True):
    """A page of restore jobs."""

    restore_jobs: list[RestoreJobsListMember]
    next_token: str | None = None


@operation(
    Api.BACKUP,
    "GET",
    "/restore-jobs/",
    output=ListRestoreJobsOutput,
    errors=READ_ERRORS,
    action="backup:ListRestoreJobs",
)
class ListRestoreJobs(Operation[ListRestoreJobsOutput], frozen=True, kw_only=True):
    """List restore jobs, newest first."""

    next_token: NextToken = None
    max_results: MaxResults = None
    by_account_id: ByAccountId = None
    by_resource_type: ByResourceType = None
    by_created_before: ByCreatedBefore = None
    by_created_after: ByCreatedAfter = None
    by_status: Annotated[RestoreJobStatus | None, Query("status"), "Only in this status."] = None
    by_complete_before: ByCompleteBefore = None
    by_complete_after: ByCompleteAfter = None
    by_restore_testing_plan_arn: Annotated[
        str | None, Query("restoreTestingPlanArn"), Length(0, 2048), "Only made by this plan."
    ] = None
    by_parent_job_id: Annotated[str | None, Query("parentJobId"), Length(0, 1024), "Only children of this job."] = None


class CompleteRestoreJobOutput(Output, frozen=True, kw_only=True):
    """How the job ended."""

    restore_job_id: str
    status: RestoreJobStatus
    completion_date: Timestamp | None = None


@operation(
    Api.BACKUP_STORAGE,
    "PUT",
    "/restore-jobs/{jobId}/complete",
    output=CompleteRestoreJobOutput,
    errors=JOB_ERRORS,
    action="backup-storage:CompleteRestoreJob",
    extension=True,
)
class CompleteRestoreJob(Operation[CompleteRestoreJobOutput], frozen=True, kw_only=True):
    """End a restore job and unpin its recovery point. A repeated request gets the same answer."""

    restore_job_id: Annotated[str, Label("jobId"), Length(1, 1024), "The restore job."]
    status: Annotated[Literal["COMPLETED", "FAILED", "ABORTED"], "How the restore ended."]
    status_message: Annotated[str | None, Length(0, 2048), Printable(), "How it went, for people."] = None
    created_resource_arn: Annotated[str | None, Length(0, 2048), Printable(), "What was restored to."] = None
    bytes_restored: Annotated[int | None, Between(0, INTEGER_MAX), "How much was written."] = None
