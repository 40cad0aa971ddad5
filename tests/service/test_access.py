"""Access keys: look-up, cache, disabling; and authorisation."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import keys
from cryostore.core.time import SECOND_MS
from cryostore.model.errors import AccessDeniedException
from cryostore.service import Caller
from cryostore.service.access import KEY_CACHE_MS, allows, authorise


@pytest.fixture
def root_key(store):
    """The id of the store's root access key."""
    return store.service.context.database.read(keys.root_access_key).access_key_id


def enable(store, access_key_id, *, enabled):
    store.service.context.database.write(
        lambda transaction: keys.enable_access_key(transaction, access_key_id, enabled=enabled)
    )


def test_the_root_key_is_known(store, root_key):
    access = store.service.access
    assert len(access.secret(root_key)) >= 40
    assert access.caller(root_key) == Caller(root_key, root=True)


@pytest.mark.parametrize("key", ["", "AKIA", "é", "x" * 1000])
def test_other_keys_are_unknown(store, key):
    assert store.service.access.secret(key) is None
    with pytest.raises(AccessDeniedException):
        store.service.access.caller(key)


def test_a_disabled_key_is_refused_within_seconds(store, root_key):
    """A server that has just used the key takes the cache time, others none. Enabling takes as long."""
    access = store.service.access
    assert access.secret(root_key)
    enable(store, root_key, enabled=False)
    other = store.open()
    assert other.access.secret(root_key) is None
    other.close()
    store.clock.advance(KEY_CACHE_MS + 1)
    assert access.secret(root_key) is None
    with pytest.raises(AccessDeniedException):
        access.caller(root_key)
    enable(store, root_key, enabled=True)
    assert access.secret(root_key)


def test_a_known_key_is_not_looked_up_again_for_a_while(store, root_key, monkeypatch):
    access = store.service.access
    secret = access.secret(root_key)
    monkeypatch.setattr(access, "_database", None)
    store.clock.advance(KEY_CACHE_MS)
    assert access.secret(root_key) == secret
    access.forget()
    with pytest.raises(AttributeError):
        access.secret(root_key)


def test_a_clock_that_is_set_back_does_not_prolong_the_cache(store, root_key):
    access = store.service.access
    assert access.secret(root_key)
    enable(store, root_key, enabled=False)
    store.clock.advance(-SECOND_MS)
    assert access.secret(root_key) is None


def test_only_root_callers_are_authorised():
    assert allows(Caller("AKIA", root=True), "backup:DeleteBackupVault", "v")
    assert not allows(Caller("AKIA"), "backup:ListBackupVaults", None)
    authorise(Caller("AKIA", root=True), "backup:ListBackupVaults", None)
    with pytest.raises(AccessDeniedException, match="backup:DeleteBackupVault on vault v"):
        authorise(Caller("AKIA"), "backup:DeleteBackupVault", "v")
