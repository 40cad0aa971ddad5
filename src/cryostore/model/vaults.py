"""Declarations of the operations on backup vaults, and the annotations that all control-plane operations share.

AWS Backup, control plane 2.3 to 2.5.
"""

from __future__ import annotations

from typing import Annotated, Literal

from cryostore.model.errors import (
    AlreadyExistsException,
    InvalidParameterValueException,
    InvalidRequestException,
    LimitExceededException,
    MissingParameterValueException,
    ResourceNotFoundException,
    ServiceUnavailableException,
)
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
from cryostore.model.rules import Between, Length, Pattern

VAULT_NAME = r"[a-zA-Z0-9\-\_]{2,50}"
VaultType = Literal["BACKUP_VAULT", "LOGICALLY_AIR_GAPPED_BACKUP_VAULT", "RESTORE_ACCESS_BACKUP_VAULT"]
EncryptionKeyType = Literal["AWS_OWNED_KMS_KEY", "CUSTOMER_MANAGED_KMS_KEY"]

BackupVaultName = Annotated[str, Label("backupVaultName"), Pattern(VAULT_NAME), "The name of a backup vault."]
BackupVaultAccountId = Annotated[
    str | None, Query("backupVaultAccountId"), Pattern(r"[0-9]{12}"), "The account of the vault; must be this server's."
]
MaxResults = Annotated[int | None, Query("maxResults"), Between(1, 1000), "The maximum number of items to return."]
NextToken = Annotated[str | None, Query("nextToken"), Length(0, 8192), "Where a partial list goes on."]
Tags = dict[str, str]

READ_ERRORS = (
    ResourceNotFoundException,
    InvalidParameterValueException,
    MissingParameterValueException,
    ServiceUnavailableException,
)


class CreateBackupVaultOutput(Output, frozen=True, kw_only=True):
    """The created vault."""

    backup_vault_name: str | None = None
    backup_vault_arn: str | None = None
    creation_date: Timestamp | None = None


@operation(
    Api.BACKUP,
    "PUT",
    "/backup-vaults/{backupVaultName}",
    output=CreateBackupVaultOutput,
    errors=(
        InvalidParameterValueException,
        MissingParameterValueException,
        ServiceUnavailableException,
        LimitExceededException,
        AlreadyExistsException,
    ),
    action="backup:CreateBackupVault",
)
class CreateBackupVault(Operation[CreateBackupVaultOutput], frozen=True, kw_only=True):
    """Create a backup vault. A request with the same CreatorRequestId gets the same answer."""

    backup_vault_name: BackupVaultName
    backup_vault_tags: Annotated[Tags | None, Sensitive(), Length(0, 50), "Tags of the vault."] = None
    encryption_key_arn: Annotated[str | None, Length(1, 2048), "The key that protects the vault's backups."] = None
    creator_request_id: Annotated[
        str | None, IdempotencyToken(), Pattern(r"[a-zA-Z0-9\-_.]{1,50}"), "Identifies the request if it is repeated."
    ] = None


class BackupVaultListMember(Shape, frozen=True, kw_only=True):
    """A vault in a list."""

    backup_vault_name: str | None = None
    backup_vault_arn: str | None = None
    vault_type: VaultType | None = None
    vault_state: Literal["CREATING", "AVAILABLE", "FAILED"] | None = None
    creation_date: Timestamp | None = None
    encryption_key_arn: str | None = None
    creator_request_id: str | None = None
    number_of_recovery_points: int | None = None
    locked: bool | None = None
    min_retention_days: int | None = None
    max_retention_days: int | None = None
    lock_date: Timestamp | None = None
    encryption_key_type: EncryptionKeyType | None = None


class DescribeBackupVaultOutput(Output, frozen=True, kw_only=True):
    """A vault."""

    backup_vault_name: str | None = None
    backup_vault_arn: str | None = None
    vault_type: VaultType | None = None
    vault_state: Literal["CREATING", "AVAILABLE", "FAILED"] | None = None
    encryption_key_arn: str | None = None
    creation_date: Timestamp | None = None
    creator_request_id: str | None = None
    number_of_recovery_points: int | None = None
    locked: bool | None = None
    min_retention_days: int | None = None
    max_retention_days: int | None = None
    lock_date: Timestamp | None = None
    encryption_key_type: EncryptionKeyType | None = None


@operation(
    Api.BACKUP,
    "GET",
    "/backup-vaults/{backupVaultName}",
    output=DescribeBackupVaultOutput,
    errors=READ_ERRORS,
    action="backup:DescribeBackupVault",
)
class DescribeBackupVault(Operation[DescribeBackupVaultOutput], frozen=True, kw_only=True):
    """Describe a backup vault."""

    backup_vault_name: BackupVaultName
    backup_vault_account_id: BackupVaultAccountId = None


class ListBackupVaultsOutput(Output, frozen=True, kw_only=True):
    """A page of vaults."""

    backup_vault_list: list[BackupVaultListMember]
    next_token: str | None = None


@operation(
    Api.BACKUP,
    "GET",
    "/backup-vaults/",
    output=ListBackupVaultsOutput,
    errors=READ_ERRORS,
    action="backup:ListBackupVaults",
)
class ListBackupVaults(Operation[ListBackupVaultsOutput], frozen=True, kw_only=True):
    """List the backup vaults."""

    by_vault_type: Annotated[VaultType | None, Query("vaultType"), "Only vaults of this type."] = None
    by_shared: Annotated[bool | None, Query("shared"), "Only vaults shared by other accounts."] = None
    next_token: NextToken = None
    max_results: MaxResults = None


@operation(
    Api.BACKUP,
    "DELETE",
    "/backup-vaults/{backupVaultName}",
    errors=(*READ_ERRORS, InvalidRequestException),
    action="backup:DeleteBackupVault",
)
class DeleteBackupVault(Operation[Nothing], frozen=True, kw_only=True):
    """Delete an empty backup vault and its keys."""

    backup_vault_name: BackupVaultName
