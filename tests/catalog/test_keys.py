"""Keys in the catalog, each wrapped."""

from __future__ import annotations

import sqlite3

import pytest

from cryostore.catalog import keys


def test_the_newest_key_of_a_vault_seals_and_all_of_them_open(catalog):
    for number in range(3):
        catalog.write(
            lambda t, number=number: keys.insert_vault_key(
                t, key_id=bytes([number]) * 16, vault_id=1, wrapped=b"w%d" % number, created_ms=9 - number
            )
        )
    newest = catalog.read(lambda t: keys.newest_vault_key(t, 1))
    assert newest.wrapped == b"w2"
    numbers = range(1, newest.key_number + 1)
    found = [catalog.read(lambda t, number=number: keys.vault_key(t, number)) for number in numbers]
    assert [row.wrapped for row in found] == [b"w0", b"w1", b"w2"]
    assert catalog.read(lambda t: keys.newest_vault_key(t, 2)) is None
    assert catalog.read(lambda t: keys.vault_key(t, 99)) is None


def test_a_key_belongs_to_a_vault_that_exists(catalog):
    with pytest.raises(sqlite3.IntegrityError):
        catalog.write(lambda t: keys.insert_vault_key(t, key_id=b"k", vault_id=99, wrapped=b"", created_ms=0))


def test_the_first_secret_of_a_name_stays(catalog):
    for wrapped in (b"first", b"second"):
        catalog.write(lambda t, wrapped=wrapped: keys.insert_secret(t, "token", wrapped))
    assert catalog.read(lambda t: keys.secret(t, "token")) == b"first"
    assert catalog.read(lambda t: keys.secret(t, "other")) is None


def test_access_keys_are_switched_off_and_on(catalog):
    for number, root in enumerate([False, True, True]):
        catalog.write(
            lambda t, number=number, root=root: keys.insert_access_key(
                t, access_key_id=f"AKIA{number}", wrapped=b"w", root=root, created_ms=number
            )
        )
    assert catalog.read(keys.root_access_key).access_key_id == "AKIA1"
    assert catalog.read(lambda t: keys.access_key(t, "AKIA0")).root is False
    for enabled in (False, True):
        catalog.write(lambda t, enabled=enabled: keys.enable_access_key(t, "AKIA1", enabled=enabled))
        assert catalog.read(lambda t: keys.access_key(t, "AKIA1")).enabled is enabled
    assert catalog.read(lambda t: keys.access_key(t, "akia1")) is None
