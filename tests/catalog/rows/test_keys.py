"""Rows of keys, each wrapped."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import keys, vaults
from cryostore.catalog.sqlite import engine as sqlite


def test_the_newest_key_of_a_vault_encrypts_and_all_of_them_decrypt(catalog):
    for number in range(3):
        catalog.write(
            lambda t, number=number: keys.insert_vault_key(
                t, key_id=bytes([number]) * 16, vault_id=1, wrapped=b"w%d" % number, created_ms=9 - number
            )
        )
    newest, second = catalog.read(lambda t: keys.newest_vault_keys(t, 1, 2))
    assert (newest.wrapped, second.wrapped) == (b"w2", b"w1")
    numbers = range(1, newest.key_number + 1)
    found = [catalog.read(lambda t, number=number: keys.vault_key(t, number)) for number in numbers]
    assert [row.wrapped for row in found] == [b"w0", b"w1", b"w2"]
    assert catalog.read(lambda t: keys.newest_vault_keys(t, 2, 2)) == []
    assert catalog.read(lambda t: keys.vault_key(t, 99)) is None


def test_a_key_needs_an_existing_vault(catalog):
    with pytest.raises(Exception, match="(?i)foreign key"):
        catalog.write(lambda t: keys.insert_vault_key(t, key_id=b"k", vault_id=99, wrapped=b"", created_ms=0))


def test_a_secret_is_never_replaced(catalog):
    for wrapped in (b"first", b"second"):
        catalog.write(lambda t, wrapped=wrapped: keys.insert_secret(t, "token", wrapped))
    assert catalog.read(lambda t: keys.secret(t, "token")) == b"first"
    assert catalog.read(lambda t: keys.secret(t, "other")) is None


def test_access_keys_are_disabled_and_enabled(catalog):
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


def test_wrapped_rows_are_listed_in_pages_per_table(catalog):
    for name in ("b", "a", "c"):
        catalog.write(lambda t, name=name: keys.insert_secret(t, name, name.encode()))
    first = catalog.read(lambda t: keys.wrapped_page(t, "secret", None, 2))
    rest = catalog.read(lambda t: keys.wrapped_page(t, "secret", first[-1].name, 2))
    assert [(row.name, row.wrapped, row.label, row.vault_id) for row in first + rest] == [
        (name, name.encode(), name.encode(), None) for name in "abc"
    ]


@pytest.mark.parametrize("table", sorted(keys.WRAPPED))
def test_wrapped_bytes_are_replaced_only_if_unchanged_since_they_were_read(catalog, table):
    catalog.write(lambda t: keys.insert_secret(t, "token", b"old"))
    catalog.write(lambda t: keys.insert_access_key(t, access_key_id="A", wrapped=b"old", root=True, created_ms=0))
    catalog.write(lambda t: keys.insert_vault_key(t, key_id=b"k" * 16, vault_id=1, wrapped=b"old", created_ms=0))
    row = catalog.read(lambda t: keys.wrapped_page(t, table, None, 9))[-1]
    assert row.wrapped == b"old"
    assert row.vault_id == (1 if table == "vault_key" else None)
    assert catalog.write(lambda t: keys.rewrap(t, row, b"new"))
    assert not catalog.write(lambda t: keys.rewrap(t, row, b"newer"))
    assert [one.wrapped for one in catalog.read(lambda t: keys.wrapped_page(t, table, None, 9))][-1] == b"new"


def test_the_keys_of_one_vault_are_overwritten(catalog):
    for number in range(3):
        catalog.write(
            lambda t, number=number: keys.insert_vault_key(
                t, key_id=bytes([number]) * 16, vault_id=1, wrapped=b"x" * (number + 1), created_ms=0
            )
        )
    other = {"key_id": b"o" * 16, "vault_id": 2, "wrapped": b"other", "created_ms": 0}
    catalog.write(lambda t: keys.insert_vault_key(t, **other))
    numbers = set(catalog.write(lambda t: keys.overwrite_vault_keys(t, 1)))
    rows = catalog.read(lambda t: keys.newest_vault_keys(t, 1, 9))
    assert [row.wrapped for row in rows] == [bytes(3), bytes(2), bytes(1)]
    assert {row.key_number for row in rows} == numbers
    assert catalog.read(lambda t: keys.newest_vault_keys(t, 2, 9))[0].wrapped == b"other"
    assert catalog.read(lambda t: keys.existing_vault_keys(t, [*numbers, 99])) == numbers


@pytest.mark.parametrize("overwritten", [True, False])
def test_overwritten_keys_are_not_in_the_file_even_if_deleted_bytes_remain(tmp_path, monkeypatch, overwritten):
    """Without overwriting, a deleted key remains in the file."""
    monkeypatch.setattr(sqlite, "SETTINGS", (*sqlite.SETTINGS, "secure_delete = OFF"))
    database = sqlite.SqliteDatabase(tmp_path / "catalog.sqlite")
    database.migrate()
    for number, name in enumerate("vw", start=1):
        values = {"name": name, "creator_request_id": None, "encryption_key_arn": None, "tags": "{}", "created_ms": 0}
        database.write(lambda t, values=values: vaults.insert(t, **values))
        wrapped = b"the key of " + name.encode() * 80
        row = {"key_id": bytes([number]) * 16, "vault_id": number, "wrapped": wrapped, "created_ms": 0}
        database.write(lambda t, row=row: keys.insert_vault_key(t, **row))

    def delete(transaction):
        if overwritten:
            keys.overwrite_vault_keys(transaction, 1)
        vaults.delete(transaction, 1)

    database.write(delete)
    database.close()
    data = (tmp_path / "catalog.sqlite").read_bytes()
    assert (b"the key of v" in data) is not overwritten
    assert b"the key of w" in data
