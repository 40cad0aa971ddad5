"""Declarations of the operations on recovery points (AWS Backup, control plane 2.5)."""

from __future__ import annotations

from typing import Annotated, Literal

from cryostore.model.errors import InvalidRequestException, InvalidResourceStateException
from cryostore.model.jobs import ByCreatedAfter, ByCreatedBefore, ByResourceType, Lifecycle
from cryostore.model.operation import (
    Api,
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
from cryostore.model.rules import Length
from cryostore.model.vaults import (
    READ_ERRORS,
    BackupVaultAccountId,
    BackupVaultName,
    EncryptionKeyType,
    MaxResults,
    NextToken,
    VaultType,
)

RecoveryPointStatus = Literal["COMPLETED", "PARTIAL", "DELETING", "EXPIRED", "AVAILABLE", "STOPPED", "CREATING"]
RecoveryPointArn = Annotated[str, Label("recoveryPointArn"), Length(1, 2048), "The recovery point."]


class CalculatedLifecycle(Shape, frozen=True, kw_only=True):
    """The times that a lifecycle gives."""

    move_to_cold_storage_at: Timestamp | None = None
    delete_at: Timestamp | None = None


class RecoveryPointByBackupVault(Shape, frozen=True, kw_only=True):
    """A recovery point in a list."""

    recovery_point_arn: str | None = None
    backup_vault_name: str | None = None
    backup_vault_arn: str | None = None
    source_backup_vault_arn: str | None = None
    resource_arn: str | None = None
    resource_type: str | None = None
    iam_role_arn: str | None = None
    status: RecoveryPointStatus | None = None
    status_message: str | None = None
    creation_date: Timestamp | None = None
    initiation_date: Timestamp | None = None
    completion_date: Timestamp | None = None
    backup_size_in_bytes: int | None = None
    calculated_lifecycle: CalculatedLifecycle | None = None
    lifecycle: Lifecycle | None = None
    encryption_key_arn: str | None = None
    is_encrypted: bool | None = None
    last_restore_time: Timestamp | None = None
    is_parent: bool | None = None
    resource_name: str | None = None
    vault_type: VaultType | None = None
    encryption_key_type: EncryptionKeyType | None = None


class DescribeRecoveryPointOutput(Output, frozen=True, kw_only=True):
    """A recovery point."""

    recovery_point_arn: str | None = None
    backup_vault_name: str | None = None
    backup_vault_arn: str | None = None
    source_backup_vault_arn: str | None = None
    resource_arn: str | None = None
    resource_type: str | None = None
    iam_role_arn: str | None = None
    status: RecoveryPointStatus | None = None
    status_message: str | None = None
    creation_date: Timestamp | None = None
    initiation_date: Timestamp | None = None
    completion_date: Timestamp | None = None
    backup_size_in_bytes: int | None = None
    calculated_lifecycle: CalculatedLifecycle | None = None
    lifecycle: Lifecycle | None = None
    encryption_key_arn: str | None = None
    is_encrypted: bool | None = None
    storage_class: Literal["WARM", "COLD", "DELETED"] | None = None
    last_restore_time: Timestamp | None = None
    is_parent: bool | None = None
    resource_name: str | None = None
    vault_type: VaultType | None = None
    encryption_key_type: EncryptionKeyType | None = None


class ListRecoveryPointsByBackupVaultOutput(Output, frozen=True, kw_only=True):
    """A page of recovery points."""

    next_token: str | None = None
    recovery_points: list[RecoveryPointByBackupVault]


@operation(
    Api.BACKUP,
    "GET",
    "/backup-vaults/{backupVaultName}/recovery-points/",
    output=ListRecoveryPointsByBackupVaultOutput,
    errors=READ_ERRORS,
    action="backup:ListRecoveryPointsByBackupVault",
)
class ListRecoveryPointsByBackupVault(Operation[ListRecoveryPointsByBackupVaultOutput], frozen=True, kw_only=True):
    """List the recovery points in a vault, newest first."""

    backup_vault_name: BackupVaultName
    backup_vault_account_id: BackupVaultAccountId = None
    next_token: NextToken = None
    max_results: MaxResults = None
    by_resource_arn: Annotated[str | None, Query("resourceArn"), Length(1, 2048), "Only of this resource."] = None
    by_resource_type: ByResourceType = None
    by_backup_plan_id: Annotated[str | None, Query("backupPlanId"), Length(0, 1024), "Only made by this plan."] = None
    by_created_before: ByCreatedBefore = None
    by_created_after: ByCreatedAfter = None
    by_parent_recovery_point_arn: Annotated[
        str | None, Query("parentRecoveryPointArn"), Length(0, 2048), "Only children of this point."
    ] = None


@operation(
    Api.BACKUP,
    "GET",
    "/backup-vaults/{backupVaultName}/recovery-points/{recoveryPointArn}",
    output=DescribeRecoveryPointOutput,
    errors=READ_ERRORS,
    action="backup:DescribeRecoveryPoint",
)
class DescribeRecoveryPoint(Operation[DescribeRecoveryPointOutput], frozen=True, kw_only=True):
    """Describe a recovery point."""

    backup_vault_name: BackupVaultName
    recovery_point_arn: RecoveryPointArn
    backup_vault_account_id: BackupVaultAccountId = None


@operation(
    Api.BACKUP,
    "DELETE",
    "/backup-vaults/{backupVaultName}/recovery-points/{recoveryPointArn}",
    errors=(*READ_ERRORS, InvalidResourceStateException, InvalidRequestException),
    action="backup:DeleteRecoveryPoint",
)
class DeleteRecoveryPoint(Operation[Nothing], frozen=True, kw_only=True):
    """Delete a recovery point. Recovery points may be deleted in any order; the others stay complete."""

    backup_vault_name: BackupVaultName
    recovery_point_arn: RecoveryPointArn


class GetRecoveryPointRestoreMetadataOutput(Output, frozen=True, kw_only=True):
    """The metadata that was saved with the point for its restore."""

    backup_vault_arn: str | None = None
    recovery_point_arn: str | None = None
    restore_metadata: Annotated[dict[str, str] | None, Sensitive()] = None
    resource_type: str | None = None


@operation(
    Api.BACKUP,
    "GET",
    "/backup-vaults/{backupVaultName}/recovery-points/{recoveryPointArn}/restore-metadata",
    output=GetRecoveryPointRestoreMetadataOutput,
    errors=READ_ERRORS,
    action="backup:GetRecoveryPointRestoreMetadata",
)
class GetRecoveryPointRestoreMetadata(Operation[GetRecoveryPointRestoreMetadataOutput], frozen=True, kw_only=True):
    """Get the metadata that was saved with the point for its restore."""

    backup_vault_name: BackupVaultName
    recovery_point_arn: RecoveryPointArn
    backup_vault_account_id: BackupVaultAccountId = None
