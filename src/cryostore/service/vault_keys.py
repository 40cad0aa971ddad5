"""Data keys of vaults: how they are made, wrapped by a master key, unwrapped and cached.

A vault has one or more data keys. The newest seals new data; all of them open data. Their wrapped rows are in
`catalog.rows.keys`; wrapping itself is in `chunks.keyring`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from cryostore.catalog.database import Database, Transaction
from cryostore.catalog.rows import keys, records
from cryostore.catalog.rows.records import VAULT, RecordKey
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.keyring import Keyring, unwrap
from cryostore.core.errors import KeyUnavailableError
from cryostore.service.store_keyring import StoreKeyring, unwrap_current

SEALING_KEY_CACHE_SECONDS = 10.0
"""How long a process may go on sealing with a vault's key after a newer one was made."""


class SealingKey(NamedTuple):
    """The key that seals a vault's new data, and its number in the catalog."""

    key_number: int
    key: DataKey


class VaultKeys:
    """A cache of unwrapped data keys, by vault and by number.

    Vault ids and key numbers are never reused, so a cached key is never taken for another. `now` is a monotonic clock
    in seconds.
    """

    def __init__(self, database: Database, keyring: Keyring, now: Callable[[], float] = time.monotonic) -> None:
        self.keyring = keyring if isinstance(keyring, StoreKeyring) else StoreKeyring(database, keyring)
        self._database = database
        self._now = now
        self._sealing: dict[int, tuple[SealingKey, float]] = {}
        self._opening: dict[int, DataKey] = {}

    def create(self, transaction: Transaction, vault_id: int, key_id: bytes, *, now_ms: int) -> None:
        """Make a new data key for a vault and insert it, wrapped by the master key in use. Raises KeyUnavailableError.

        Call `prepare` before the unit of work: then this waits for no keyring, unless a rotation has just started.
        """
        key = DataKey.generate(key_id)
        wrapped = self.keyring.master_key(transaction).wrap(key.secret, vault_key_context(key_id))
        keys.insert_vault_key(transaction, key_id=key_id, vault_id=vault_id, wrapped=wrapped, created_ms=now_ms)

    def prepare(self) -> None:
        """Load the master key in use before a unit of work that needs it. Raises KeyUnavailableError."""
        self.keyring.active()

    def sealing(self, vault_id: int) -> SealingKey:
        """The key that seals new data of a vault; a newer one is noticed within SEALING_KEY_CACHE_SECONDS.

        Data sealed with the previous key is as good, since all keys of a vault open. Raises KeyUnavailableError.
        """
        now = self._now()
        found = self._sealing.get(vault_id)
        if found is None or now >= found[1]:
            sealing = unwrap_current(
                lambda: self._database.read(lambda transaction: _sealing_row(transaction, vault_id)),
                lambda row: self._known(vault_id, row),
            )
            found = self._sealing[vault_id] = (sealing, now + SEALING_KEY_CACHE_SECONDS)
        return found[0]

    def opening(self, key_number: int) -> DataKey:
        """The data key with this number. Raises KeyUnavailableError."""
        if (found := self._opening.get(key_number)) is None:
            found = self._opening[key_number] = unwrap_current(
                lambda: self._database.read(lambda transaction: keys.vault_key(transaction, key_number)), self._unwrap
            )
        return found

    def drop_destroyed(self) -> None:
        """Drop the cached keys that the catalog no longer has."""
        numbers = list(self._opening)
        gone = set(numbers) - self._database.read(lambda transaction: keys.existing_vault_keys(transaction, numbers))
        self.drop(gone)

    def drop(self, numbers: Collection[int]) -> None:
        """Drop cached keys."""
        for number in numbers:
            self._opening.pop(number, None)
        for vault_id, (sealing, _) in list(self._sealing.items()):
            if sealing.key_number in numbers:
                self._sealing.pop(vault_id, None)

    def _known(self, vault_id: int, row: keys.VaultKeyRow | None) -> SealingKey:
        """The key of a row, from the cache if it is there: sealing works while the master key is unavailable."""
        if row is None:
            self._sealing.pop(vault_id, None)
            raise KeyUnavailableError("the vault's key no longer exists")
        key = self._opening.get(row.key_number) or self._unwrap(row)
        self._opening[row.key_number] = key
        return SealingKey(row.key_number, key)

    def _unwrap(self, row: keys.VaultKeyRow | None) -> DataKey:
        if row is None:
            raise KeyUnavailableError("the vault's key no longer exists")
        return DataKey(row.key_id, unwrap(self.keyring, row.wrapped, vault_key_context(row.key_id)))


def _sealing_row(transaction: Transaction, vault_id: int) -> keys.VaultKeyRow | None:
    """The newest key of a vault; but the previous one while the record that holds the newest may not be written yet.

    Otherwise a loss of the catalog would lose the data that the newest key sealed.
    """
    newest = keys.newest_vault_keys(transaction, vault_id, 2)
    record = records.find(transaction, RecordKey(VAULT, vault_id))
    is_due = record is not None and record.recorded < record.changes
    return None if not newest else newest[-1 if is_due else 0]


def vault_key_context(key_id: bytes) -> bytes:
    """The associated data that binds a wrapped data key to its id."""
    return b"vault key\0" + key_id
