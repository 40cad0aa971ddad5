"""Data keys of vaults: which one seals, how soon a new one is used, and when the cache drops one."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import keys
from cryostore.catalog.rows.records import VAULT, RecordKey
from cryostore.core.errors import KeyUnavailableError
from cryostore.maintenance.background_tasks import drop_destroyed_keys
from cryostore.model.vaults import DeleteBackupVault
from cryostore.service.recording import mark_vault_changed, update_record
from cryostore.service.store_keyring import TOKEN_SECRET
from cryostore.service.vault_keys import SEALING_KEY_CACHE_SECONDS, VaultKeys
from support.catalogs.memory_database import MemoryDatabase
from support.stores.keyrings import BOTH, OLD, OLD_ALONE, ChangingKeyring

VAULT_ID = 1  # Default, the first one of every store


class Now:
    """A monotonic clock that stands still."""

    def __init__(self):
        self.seconds = 50.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def database(store):
    return store.service.context.database


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def vault_keys(store, database, now):
    """The vault keys of another server."""
    return VaultKeys(database, store.service.context.keys.keyring, now)


def add_key(store, number):
    """Give the vault another data key, without a record of it."""

    def work(transaction):
        store.service.context.keys.create(transaction, VAULT_ID, bytes([number]) * 16, now_ms=0)
        mark_vault_changed(transaction, VAULT_ID)

    store.service.context.database.write(work)


def put_on_record(store):
    """Write the record of the vault."""
    update_record(store.service.context, RecordKey(VAULT, VAULT_ID))


def test_a_newer_key_is_looked_up_after_the_cache_time(store, vault_keys, now):
    first = vault_keys.sealing(VAULT_ID)
    add_key(store, 1)
    put_on_record(store)
    now.seconds += SEALING_KEY_CACHE_SECONDS - 0.1
    assert vault_keys.sealing(VAULT_ID) == first
    now.seconds += 0.1
    second = vault_keys.sealing(VAULT_ID)
    assert second.key.key_id == bytes([1]) * 16
    assert second.key_number > first.key_number
    assert vault_keys.opening(first.key_number).secret == first.key.secret
    assert vault_keys.opening(second.key_number) is second.key


def test_a_key_seals_only_after_its_record_is_written(store, vault_keys, now):
    """Otherwise losing the catalog would lose the data that the key sealed."""
    first = vault_keys.sealing(VAULT_ID)
    add_key(store, 1)
    now.seconds += SEALING_KEY_CACHE_SECONDS
    assert vault_keys.sealing(VAULT_ID) == first
    fresh = VaultKeys(store.service.context.database, store.service.context.keys.keyring, now)
    assert fresh.sealing(VAULT_ID).key_number == first.key_number
    put_on_record(store)
    now.seconds += SEALING_KEY_CACHE_SECONDS
    assert vault_keys.sealing(VAULT_ID).key.key_id == fresh.sealing(VAULT_ID).key.key_id == bytes([1]) * 16


def test_a_cached_key_is_used_while_its_master_key_is_unavailable(database, now):
    ring = ChangingKeyring(OLD_ALONE)
    memory = MemoryDatabase()
    memory.write(lambda t: keys.insert_secret(t, TOKEN_SECRET, OLD.wrap(b"token", TOKEN_SECRET.encode())))
    vault_keys = VaultKeys(memory, ring, now)
    insert = "INSERT INTO vault (name, tags, created_ms) VALUES (:name, '{}', 0)"
    for name in "vw":
        memory.write(lambda t, name=name: t.run(insert, name=name))
    for vault_id in (1, 2):
        memory.write(lambda t, vault_id=vault_id: vault_keys.create(t, vault_id, bytes([vault_id]) * 16, now_ms=0))
    known = vault_keys.sealing(1)
    ring.document = BOTH.without("old")
    now.seconds += SEALING_KEY_CACHE_SECONDS
    assert vault_keys.sealing(1).key is known.key
    for refused in (lambda: vault_keys.sealing(2), lambda: vault_keys.opening(2)):
        with pytest.raises(KeyUnavailableError):
            refused()
    ring.document = BOTH
    assert vault_keys.sealing(2).key.key_id == bytes([2]) * 16
    memory.close()


def test_deleting_a_vault_drops_its_keys_from_all_caches(store, database, vault_keys, now):
    """At once in the process that deletes it, and in others with the next background tasks."""
    api = store.api()
    name = api.new_vault()
    api.stop(api.running_job())
    store.maintain()
    vault_id = database.read(lambda t: t.row("SELECT vault_id FROM vault WHERE name = :name", name=name))[0]
    here = store.service.context.keys
    number = vault_keys.sealing(vault_id).key_number
    here.sealing(vault_id)
    other = here.sealing(VAULT_ID)
    vault_keys.sealing(VAULT_ID)
    api.call(DeleteBackupVault(backup_vault_name=name))
    assert number not in here._opening
    assert vault_id not in here._sealing
    assert here.opening(other.key_number) is other.key
    vault_keys.drop_destroyed()
    for cache in (vault_keys._opening, vault_keys._sealing, here._opening, here._sealing):
        assert len(cache) == 1
    for refused in (lambda: vault_keys.sealing(vault_id), lambda: vault_keys.opening(number)):
        with pytest.raises(KeyUnavailableError, match="no longer exists"):
            refused()


def test_a_deleted_key_does_not_seal_for_long_even_without_background_tasks(store, vault_keys, now):
    api = store.api()
    name = api.new_vault()
    vault_id = store.service.context.database.read(
        lambda t: t.row("SELECT vault_id FROM vault WHERE name = :name", name=name)
    )[0]
    vault_keys.sealing(vault_id)
    api.call(DeleteBackupVault(backup_vault_name=name))
    now.seconds += SEALING_KEY_CACHE_SECONDS
    with pytest.raises(KeyUnavailableError, match="no longer exists"):
        vault_keys.sealing(vault_id)


def test_the_background_task_drops_keys_that_another_process_destroyed(store):
    context = store.service.context
    sealing = context.keys.sealing(VAULT_ID)
    context.keys._opening[999] = sealing.key
    drop_destroyed_keys(context)
    assert list(context.keys._opening) == [sealing.key_number]


def test_no_file_contains_the_key_of_a_deleted_vault(store):
    """The key is overwritten in place, with and without the engine's own secure deletion."""
    api, database = store.api(), store.service.context.database
    name = api.new_vault()
    (wrapped,) = database.read(
        lambda t: t.row("SELECT wrapped FROM vault_key JOIN vault USING (vault_id) WHERE vault.name = :name", name=name)
    )
    store.reopen()  # moves the rows from the write-ahead log into the file
    files = [store.data_dir / "catalog.sqlite", *(store.data_dir / "records").rglob("*.*")]
    assert wrapped in files[0].read_bytes()
    api.call(DeleteBackupVault(backup_vault_name=name))
    store.reopen()
    files = [path for path in store.data_dir.rglob("*") if path.is_file()]
    assert [path.name for path in files if wrapped[-40:] in path.read_bytes()] == []
