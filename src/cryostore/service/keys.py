"""The vaults' data keys, unwrapped when first needed and kept in memory."""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog import keys
from cryostore.catalog.database import Database, Transaction
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.keyring import Keyring, unwrap
from cryostore.core.errors import KeyUnavailableError


class SealingKey(NamedTuple):
    """The key that seals a vault's new data, and its number in the catalog."""

    key_number: int
    key: DataKey


class VaultKeys:
    """Data keys by vault and by number. Vault ids and key numbers are never used twice, so nothing goes stale."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._sealing: dict[int, SealingKey] = {}
        self._opening: dict[int, DataKey] = {}

    def create(self, transaction: Transaction, vault_id: int, key_id: bytes, *, now_ms: int) -> None:
        """Give a vault a new data key, wrapped by the active master key."""
        key = DataKey.generate(key_id)
        wrapped = self._keyring.active().wrap(key.secret, _context(key_id))
        keys.insert_vault_key(transaction, key_id=key_id, vault_id=vault_id, wrapped=wrapped, created_ms=now_ms)

    def sealing(self, vault_id: int) -> SealingKey:
        """The key that seals new data of a vault. Raises KeyUnavailableError."""
        if (found := self._sealing.get(vault_id)) is None:
            row = self._database.read(lambda transaction: keys.newest_vault_key(transaction, vault_id))
            found = self._sealing[vault_id] = SealingKey(*self._unwrap(row))
            self._opening[found.key_number] = found.key
        return found

    def opening(self, key_number: int) -> DataKey:
        """The key of this number. Raises KeyUnavailableError."""
        if (found := self._opening.get(key_number)) is None:
            row = self._database.read(lambda transaction: keys.vault_key(transaction, key_number))
            found = self._opening[key_number] = self._unwrap(row)[1]
        return found

    def _unwrap(self, row: keys.VaultKeyRow | None) -> tuple[int, DataKey]:
        if row is None:
            raise KeyUnavailableError("the vault's key no longer exists")
        secret = unwrap(self._keyring, row.wrapped, _context(row.key_id))
        return row.key_number, DataKey(row.key_id, secret)


def _context(key_id: bytes) -> bytes:
    return b"vault key\0" + key_id
