"""The keyring of a store: the master key in use wraps new rows, and a rotation changes it under running requests."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import keys, records
from cryostore.catalog.rows.records import VAULT, RecordKey
from cryostore.chunks.keyring import wrapped_key_id
from cryostore.core.errors import KeyUnavailableError
from cryostore.maintenance.key_rotation import RotationResult, forget_master_key, rotate_master_key
from cryostore.model.errors import ServiceUnavailableException
from cryostore.model.vaults import CreateBackupVault
from cryostore.service.store_keyring import TOKEN_SECRET, StoreKeyring, master_key_in_use
from support.catalogs.memory_database import MemoryDatabase
from support.stores.keyrings import BOTH, NEW, OLD, ChangingKeyring, write_keyring

VAULT_ID = 1  # Default, the first one of every store


def write_new_active(store):
    """Add a key to the store's keyring file."""
    return store.service.context.keys.keyring.source.add(store.service.context.new_id)


def test_the_key_in_use_wraps_whichever_key_is_active():
    """The key in use is the one that wraps the token secret; a rotation changes it in a transaction."""
    memory, ring = MemoryDatabase(), ChangingKeyring(BOTH)
    keyring = StoreKeyring(memory, ring)
    assert keyring.active() is NEW  # a store without wrapped rows
    memory.write(lambda t: keys.insert_secret(t, TOKEN_SECRET, OLD.wrap(b"token", TOKEN_SECRET.encode())))
    assert keyring.active() is OLD
    assert memory.read(keyring.master_key) is OLD
    assert memory.read(master_key_in_use) == "old"
    ring.document = BOTH.without("old")
    with pytest.raises(KeyUnavailableError):
        keyring.active()
    memory.close()


def test_a_vault_is_created_with_the_key_in_use_although_the_keyring_has_a_newer_one(store):
    write_new_active(store)
    store.api().new_vault()
    rows = store.service.context.database.read(lambda t: t.rows("SELECT wrapped FROM vault_key"))
    assert len({wrapped_key_id(row[0]) for row in rows}) == 1


def test_no_vault_is_created_without_the_key_in_use(store):
    path = store.data_dir / "keyring.json"
    kept = path.read_bytes()
    write_keyring(path, BOTH)
    api = store.api()
    api.refuses(ServiceUnavailableException, CreateBackupVault(backup_vault_name="new-vault"))
    path.write_bytes(kept)
    api.call(CreateBackupVault(backup_vault_name="new-vault"))


def test_records_are_wrapped_with_the_key_in_use(store):
    context = store.service.context
    write_new_active(store)
    store.api().new_vault()
    rows = context.database.read(lambda t: records.page(t, RecordKey(VAULT), 9))
    names = [name for row in rows for name in context.records.names(VAULT) if name.number == row.number]
    in_use = context.database.read(master_key_in_use)
    assert {wrapped_key_id(context.records.wrapped(name)) for name in names} == {in_use}


def test_a_row_that_a_rotation_rewraps_meanwhile_is_read_again(store):
    """The old master key is forgotten between the reading of a row and its unwrapping: the row is read again."""
    context, vault_keys = store.service.context, store.service.context.keys
    context.keys.drop([context.keys.sealing(VAULT_ID).key_number])
    source = vault_keys.keyring.source
    lines = (store.data_dir / "credentials").read_text().splitlines()
    access_key_id = next(line.split(" = ")[1] for line in lines if "access_key_id" in line)

    class Racing:
        """Once, right before the key is requested, rotates and forgets the old key."""

        def key(self, key_id):
            if vault_keys.keyring.source is self:
                vault_keys.keyring.source = source
                for _ in rotate_master_key(context, RotationResult()):
                    pass
                forget_master_key(context, key_id)
            return source.key(key_id)

    for use in (
        lambda: vault_keys.sealing(VAULT_ID),
        lambda: vault_keys.opening(1),
        vault_keys.keyring.active,
        lambda: store.service.access.secret(access_key_id),
    ):
        vault_keys.drop([1])
        vault_keys.keyring.source = Racing()
        assert use()
        assert vault_keys.keyring.source is source
