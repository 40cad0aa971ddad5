"""Vaults of the service in process."""

from __future__ import annotations

from conformance import api_vaults
from cryostore.model.vaults import CreateBackupVault, DescribeBackupVault


class TestVault(api_vaults.VaultTests):
    pass


class TestVaultList(api_vaults.VaultListTests):
    pass


def test_the_key_of_a_vault_is_described_until_a_rotation_replaces_it(api, shared_store):
    """The ARN names the master key in use; after a rotation it would name one that wraps nothing of the vault."""
    key_id = shared_store.service.context.keys.keyring.active().key_id
    arn = f"arn:aws:kms:local-1:000000000000:key/{key_id}"
    api.call(CreateBackupVault(backup_vault_name="keyed", encryption_key_arn=arn))
    vault = api.call(DescribeBackupVault(backup_vault_name="keyed"))
    assert (vault.encryption_key_arn, vault.encryption_key_type) == (arn, "CUSTOMER_MANAGED_KMS_KEY")
    invented = "UPDATE vault SET encryption_key_arn = :arn WHERE name = 'keyed'"
    shared_store.service.context.database.write(lambda t: t.run(invented, arn=arn + "0"))
    vault = api.call(DescribeBackupVault(backup_vault_name="keyed"))
    assert (vault.encryption_key_arn, vault.encryption_key_type) == (None, "AWS_OWNED_KMS_KEY")
