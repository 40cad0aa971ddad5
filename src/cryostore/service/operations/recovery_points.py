"""Operations on recovery points: list, describe, delete, restore metadata (control plane 2.5)."""

from __future__ import annotations

from typing import Any

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.processes import epoch as collections
from cryostore.catalog.rows import jobs, records, recovery_points, restore_jobs
from cryostore.catalog.rows.records import of_commit
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.catalog.rows.vaults import VaultRow
from cryostore.core.time import DAY_MS, seconds
from cryostore.model.errors import (
    InvalidRequestException,
    InvalidResourceStateException,
    ResourceNotFoundException,
)
from cryostore.model.jobs import Lifecycle
from cryostore.model.operation import Nothing
from cryostore.model.recovery_points import (
    CalculatedLifecycle,
    DeleteRecoveryPoint,
    DescribeRecoveryPoint,
    DescribeRecoveryPointOutput,
    GetRecoveryPointRestoreMetadata,
    GetRecoveryPointRestoreMetadataOutput,
    ListRecoveryPointsByBackupVault,
    ListRecoveryPointsByBackupVaultOutput,
    RecoveryPointByBackupVault,
)
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.lineages import delete_point
from cryostore.service.operations.pages import cut_page, requested_page, time_conditions
from cryostore.service.operations.text_maps import parse_map
from cryostore.service.operations.vaults import check_account, key_type, vault_by_name
from cryostore.service.unknown_commits import HINT, unknown_commits_message

DELETE_BATCHES_MAX = 20


def list_recovery_points_by_backup_vault(
    context: Context, operation: ListRecoveryPointsByBackupVault, caller: Caller
) -> ListRecoveryPointsByBackupVaultOutput:
    """List the points of a vault, newest first, including those in state CREATING or DELETING."""
    authorise(caller, operation.declaration.action, operation.backup_vault_name)
    check_account(context, operation.backup_vault_account_id)
    page = requested_page(context, operation)

    def work(transaction: Transaction) -> tuple[VaultRow, list[PointRow]]:
        vault = vault_by_name(transaction, operation.backup_vault_name)
        if operation.by_parent_recovery_point_arn or operation.by_backup_plan_id:
            return vault, []
        conditions = _conditions(operation, vault.vault_id)
        return vault, recovery_points.page(transaction, conditions=conditions, before=page.after, limit=page.limit + 1)

    vault, rows = context.database.read(work)
    kept, token = cut_page(context, page, rows, lambda row: (row.created_ms, row.point_id))
    return ListRecoveryPointsByBackupVaultOutput(
        recovery_points=[RecoveryPointByBackupVault(**_facts(context, vault, row)) for row in kept], next_token=token
    )


def _conditions(operation: ListRecoveryPointsByBackupVault, vault_id: int) -> dict[str, tuple[str, Any]]:
    wanted = {
        "vault_id": ("vault_id = :vault_id", vault_id),
        "resource_arn": ("resource_arn = :resource_arn", operation.by_resource_arn),
        "resource_type": ("resource_type = :resource_type", operation.by_resource_type),
        **time_conditions(operation.by_created_after, operation.by_created_before, None, None),
    }
    return {name: condition for name, condition in wanted.items() if condition[1] is not None}


def find_point(context: Context, transaction: Transaction, vault: VaultRow, arn: str) -> PointRow:
    """The vault's recovery point with this ARN. Raises ResourceNotFoundException."""
    point_id = context.arns.point_id(arn)
    point = recovery_points.find(transaction, point_id) if point_id else None
    if point is None or point.vault_id != vault.vault_id:
        raise ResourceNotFoundException(f"Recovery point {arn!a} does not exist in vault {vault.name}.")
    return point


def describe_recovery_point(
    context: Context, operation: DescribeRecoveryPoint, caller: Caller
) -> DescribeRecoveryPointOutput:
    """Describe a recovery point."""
    authorise(caller, operation.declaration.action, operation.backup_vault_name)
    check_account(context, operation.backup_vault_account_id)

    def work(transaction: Transaction) -> tuple[VaultRow, PointRow]:
        vault = vault_by_name(transaction, operation.backup_vault_name)
        return vault, find_point(context, transaction, vault, operation.recovery_point_arn)

    return DescribeRecoveryPointOutput(**_facts(context, *context.database.read(work)), storage_class="WARM")


def delete_recovery_point(context: Context, operation: DeleteRecoveryPoint, caller: Caller) -> Nothing:
    """Delete a point that no job needs, and the rows that only it sees; maintenance finishes a large deletion."""
    authorise(caller, operation.declaration.action, operation.backup_vault_name)

    def work(transaction: Transaction) -> PointRow:
        vault = vault_by_name(transaction, operation.backup_vault_name)
        point = find_point(context, transaction, vault, operation.recovery_point_arn)
        if count := collections.unknown_commits(transaction):
            raise InvalidResourceStateException(f"Nothing can be deleted: {unknown_commits_message(count)}; {HINT}")
        if point.status == "CREATING":
            raise InvalidRequestException("The recovery point is still being created; stop its backup job instead.")
        base_of = jobs.open_job_on_base(transaction, point.point_id)
        if base_of is not None:
            raise InvalidResourceStateException(f"The recovery point is the base of backup job {base_of}.")
        restored_by = restore_jobs.open_job_of_point(transaction, point.point_id)
        if restored_by is not None:
            raise InvalidResourceStateException(f"The recovery point is being restored by job {restored_by}.")
        recovery_points.mark_deleting(transaction, point.point_id)
        if point.segment is not None:
            records.touch_known(transaction, of_commit(point.segment))
        return point

    delete_point(context, context.database.write(work), batches_max=DELETE_BATCHES_MAX)
    return Nothing()


def get_recovery_point_restore_metadata(
    context: Context, operation: GetRecoveryPointRestoreMetadata, caller: Caller
) -> GetRecoveryPointRestoreMetadataOutput:
    """Return the metadata that the commit saved for restores."""
    authorise(caller, operation.declaration.action, operation.backup_vault_name)
    check_account(context, operation.backup_vault_account_id)

    def work(transaction: Transaction) -> PointRow:
        vault = vault_by_name(transaction, operation.backup_vault_name)
        return find_point(context, transaction, vault, operation.recovery_point_arn)

    point = context.database.read(work)
    return GetRecoveryPointRestoreMetadataOutput(
        backup_vault_arn=context.arns.vault(operation.backup_vault_name),
        recovery_point_arn=context.arns.point(point.point_id),
        restore_metadata=parse_map(point.restore_metadata),
        resource_type=point.resource_type,
    )


def _facts(context: Context, vault: VaultRow, point: PointRow) -> dict[str, Any]:
    lifecycle = msgspec.json.decode(point.lifecycle, type=Lifecycle) if point.lifecycle else None
    return {
        "recovery_point_arn": context.arns.point(point.point_id),
        "backup_vault_name": vault.name,
        "backup_vault_arn": context.arns.vault(vault.name),
        "resource_arn": point.resource_arn,
        "resource_type": point.resource_type,
        "resource_name": point.resource_name,
        "iam_role_arn": point.role_arn,
        "status": point.status,
        "status_message": point.status_message,
        "creation_date": seconds(point.created_ms),
        "initiation_date": None if point.initiated_ms is None else seconds(point.initiated_ms),
        "completion_date": None if point.completed_ms is None else seconds(point.completed_ms),
        "last_restore_time": None if point.last_restore_ms is None else seconds(point.last_restore_ms),
        "backup_size_in_bytes": point.size_bytes,
        "lifecycle": lifecycle,
        "calculated_lifecycle": calculated(point.created_ms, lifecycle),
        "encryption_key_arn": vault.encryption_key_arn,
        "encryption_key_type": key_type(vault.encryption_key_arn),
        "is_encrypted": True,
        "is_parent": False,
        "vault_type": "BACKUP_VAULT",
    }


def calculated(created_ms: int, lifecycle: Lifecycle | None) -> CalculatedLifecycle | None:
    """The times that a lifecycle gives for a point created then."""
    if lifecycle is None:
        return None
    cold, delete = lifecycle.move_to_cold_storage_after_days, lifecycle.delete_after_days
    return CalculatedLifecycle(
        move_to_cold_storage_at=None if cold is None else seconds(created_ms + cold * DAY_MS),
        delete_at=None if delete is None else seconds(created_ms + delete * DAY_MS),
    )
