"""Operations on vaults: create, describe, list, delete (control plane 2.5)."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.processes import epoch as collections
from cryostore.catalog.rows import keys, records, recovery_points, vaults
from cryostore.catalog.rows.records import VAULT, RecordKey
from cryostore.catalog.rows.vaults import VaultRow
from cryostore.chunks.keyring import wrapped_key_id
from cryostore.core.time import seconds
from cryostore.model.errors import (
    AlreadyExistsException,
    InvalidParameterValueException,
    InvalidRequestException,
    ResourceNotFoundException,
)
from cryostore.model.operation import Nothing
from cryostore.model.vaults import (
    BackupVaultListMember,
    CreateBackupVault,
    CreateBackupVaultOutput,
    DeleteBackupVault,
    DescribeBackupVault,
    DescribeBackupVaultOutput,
    ListBackupVaults,
    ListBackupVaultsOutput,
)
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.operations.pages import cut_page, requested_page
from cryostore.service.operations.text_maps import map_bytes
from cryostore.service.recording import mark_vault_changed, update_record
from cryostore.service.unknown_commits import HINT, unknown_commits_message

TAG_KEY_CHARACTERS_MAX = 128
TAG_VALUE_CHARACTERS_MAX = 256
TAG_KEYS_RESERVED = "aws:"
"""Reserved prefix, in upper or lower case: only AWS sets such tags."""


def create_backup_vault(context: Context, operation: CreateBackupVault, caller: Caller) -> CreateBackupVaultOutput:
    """Create a vault and its first data key."""
    name = operation.backup_vault_name
    authorise(caller, operation.declaration.action, name)
    check_tags("BackupVaultTags", operation.backup_vault_tags)
    now_ms = context.clock()
    context.keys.prepare()

    def work(transaction: Transaction) -> tuple[VaultRow, bool]:
        created = vaults.insert(
            transaction,
            name=name,
            creator_request_id=operation.creator_request_id,
            encryption_key_arn=operation.encryption_key_arn,
            tags=msgspec.json.encode(operation.backup_vault_tags or {}).decode(),
            created_ms=now_ms,
        )
        if created is None:
            return vault_by_name(transaction, name), False
        _check_key(operation.encryption_key_arn, context.keys.keyring.master_key(transaction).key_id)
        context.keys.create(transaction, created.vault_id, uuid.UUID(context.new_id()).bytes, now_ms=now_ms)
        mark_vault_changed(transaction, created.vault_id)
        return created, True

    vault, new = context.database.write(work)
    same_request = vault.creator_request_id is not None and vault.creator_request_id == operation.creator_request_id
    if not new and not same_request:
        raise AlreadyExistsException(
            f"Backup vault {name} already exists.",
            creator_request_id=vault.creator_request_id,
            arn=context.arns.vault(name),
        )
    update_record(context, RecordKey(VAULT, vault.vault_id))
    return CreateBackupVaultOutput(
        backup_vault_name=name, backup_vault_arn=context.arns.vault(name), creation_date=seconds(vault.created_ms)
    )


def describe_backup_vault(
    context: Context, operation: DescribeBackupVault, caller: Caller
) -> DescribeBackupVaultOutput:
    """Describe a vault."""
    authorise(caller, operation.declaration.action, operation.backup_vault_name)
    check_account(context, operation.backup_vault_account_id)

    def work(transaction: Transaction) -> dict[str, Any]:
        return _facts(context, transaction, vault_by_name(transaction, operation.backup_vault_name))

    return DescribeBackupVaultOutput(**context.database.read(work))


def list_backup_vaults(context: Context, operation: ListBackupVaults, caller: Caller) -> ListBackupVaultsOutput:
    """List vaults by name."""
    authorise(caller, operation.declaration.action, None)
    page = requested_page(context, operation)
    if operation.by_shared or operation.by_vault_type not in (None, "BACKUP_VAULT"):
        return ListBackupVaultsOutput(backup_vault_list=[])

    def work(transaction: Transaction) -> list[BackupVaultListMember]:
        rows = vaults.page(transaction, after=page.after or "", limit=page.limit + 1)
        return [BackupVaultListMember(**_facts(context, transaction, _with_true_key(transaction, row))) for row in rows]

    members, token = cut_page(context, page, context.database.read(work), lambda member: member.backup_vault_name)
    return ListBackupVaultsOutput(backup_vault_list=list(members), next_token=token)


def delete_backup_vault(context: Context, operation: DeleteBackupVault, caller: Caller) -> Nothing:
    """Delete an empty vault and destroy its keys."""
    authorise(caller, operation.declaration.action, operation.backup_vault_name)

    def work(transaction: Transaction) -> tuple[RecordKey, list[int]]:
        vault = vault_by_name(transaction, operation.backup_vault_name)
        if count := collections.unknown_commits(transaction):
            raise InvalidRequestException(f"Nothing can be deleted: {unknown_commits_message(count)}; {HINT}")
        if vaults.is_used(transaction, vault.vault_id):
            raise InvalidRequestException(
                "Backup vault cannot be deleted because it contains recovery points or its jobs are still open."
            )
        key_numbers = keys.overwrite_vault_keys(transaction, vault.vault_id)
        vaults.delete(transaction, vault.vault_id)
        records.end(transaction, key := RecordKey(VAULT, vault.vault_id))
        return key, key_numbers

    key, key_numbers = context.database.write(work)
    context.keys.drop(key_numbers)
    update_record(context, key)
    return Nothing()


def vault_by_name(transaction: Transaction, name: str) -> VaultRow:
    """The vault of this name. Raises ResourceNotFoundException."""
    if (vault := vaults.by_name(transaction, name)) is None:
        raise ResourceNotFoundException(f"Backup vault {name} does not exist.")
    return _with_true_key(transaction, vault)


def vault_name(transaction: Transaction, vault_id: int) -> str:
    """The name of a vault by its id. Raises ResourceNotFoundException."""
    if (vault := vaults.by_id(transaction, vault_id)) is None:
        raise ResourceNotFoundException("The backup vault no longer exists.")
    return vault.name


def check_account(context: Context, account_id: str | None) -> None:
    """Raise InvalidParameterValueException if an account is given and is not this server's."""
    if account_id not in (None, context.settings.account_id):
        raise InvalidParameterValueException(f"BackupVaultAccountId: must be {context.settings.account_id}")


def _check_key(arn: str | None, key_id: str) -> None:
    """Raise InvalidParameterValueException if an ARN is given that does not name the master key in use."""
    if arn is not None and _key_id(arn) != key_id:
        raise InvalidParameterValueException(
            f"EncryptionKeyArn: {arn[:200]!a} selects no key that this server wraps with: end it with key/{key_id},"
            " or leave it out for the server's own"
        )


def _key_id(arn: str) -> str:
    """The id of a master key by its ARN; empty for any other ARN."""
    return arn.partition(":key/")[2] if arn.startswith("arn:") else ""


def _with_true_key(transaction: Transaction, vault: VaultRow) -> VaultRow:
    """The vault, without the ARN of its key if a rotation has wrapped the vault's keys with another one since."""
    if vault.encryption_key_arn is None:
        return vault
    newest = keys.newest_vault_keys(transaction, vault.vault_id, 1)
    if newest and wrapped_key_id(newest[0].wrapped) == _key_id(vault.encryption_key_arn):
        return vault
    return vault._replace(encryption_key_arn=None)


def check_tags(name: str, tags: dict[str, str] | None) -> None:
    """Raise InvalidParameterValueException for a tag that is too long, reserved or invalid. Never shows a value."""
    map_bytes(name, tags or {}, InvalidParameterValueException)
    for key, value in (tags or {}).items():
        if key.lower().startswith(TAG_KEYS_RESERVED):
            raise InvalidParameterValueException(f"{name}: {key[:TAG_KEY_CHARACTERS_MAX]!a} must not begin with aws:")
        if not 1 <= len(key) <= TAG_KEY_CHARACTERS_MAX or len(value) > TAG_VALUE_CHARACTERS_MAX:
            raise InvalidParameterValueException(
                f"{name}: a key must be 1 to {TAG_KEY_CHARACTERS_MAX} characters long,"
                f" a value at most {TAG_VALUE_CHARACTERS_MAX}"
            )


def key_type(encryption_key_arn: str | None) -> str:
    """The EncryptionKeyType of a vault."""
    return "CUSTOMER_MANAGED_KMS_KEY" if encryption_key_arn else "AWS_OWNED_KMS_KEY"


def _facts(context: Context, transaction: Transaction, vault: VaultRow) -> dict[str, Any]:
    return {
        "backup_vault_name": vault.name,
        "backup_vault_arn": context.arns.vault(vault.name),
        "vault_type": "BACKUP_VAULT",
        "vault_state": "AVAILABLE",
        "encryption_key_arn": vault.encryption_key_arn,
        "encryption_key_type": key_type(vault.encryption_key_arn),
        "creation_date": seconds(vault.created_ms),
        "creator_request_id": vault.creator_request_id,
        "number_of_recovery_points": recovery_points.count_in_vault(transaction, vault.vault_id),
        "locked": False,
    }
