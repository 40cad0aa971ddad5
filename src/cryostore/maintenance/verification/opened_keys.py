"""A cache of data keys for a long piece of work. Each key is asked for once, even if it is missing."""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.rows import keys
from cryostore.chunks.cipher import DataKey
from cryostore.core.errors import KeyUnavailableError
from cryostore.service import Context


class OwnedKey(NamedTuple):
    """A data key, its number in the catalog, and its vault."""

    key_number: int
    vault_id: int
    key: DataKey


class OpenedKeys:
    """Data keys by number and by id. `missing` has, by number, why a key could not be opened."""

    def __init__(self, context: Context) -> None:
        self.missing: dict[int, str] = {}
        self._context = context
        self._by_number: dict[int, DataKey | None] = {}
        self._by_id: dict[bytes, OwnedKey | None] = {}

    def of_number(self, key_number: int) -> DataKey | None:
        """Return the key of this number; None if it cannot be opened."""
        if key_number not in self._by_number:
            try:
                self._by_number[key_number] = self._context.keys.opening(key_number)
            except KeyUnavailableError as error:
                self._by_number[key_number] = None
                self.missing[key_number] = error.message
        return self._by_number[key_number]

    def of_id(self, key_id: bytes) -> OwnedKey | None:
        """Return the key with this id; None if the catalog has no such key or it cannot be opened."""
        if key_id not in self._by_id:
            owner = self._context.database.read(lambda transaction: keys.vault_key_owner(transaction, key_id))
            key = None if owner is None else self.of_number(owner[0])
            self._by_id[key_id] = None if owner is None or key is None else OwnedKey(*owner, key)
        return self._by_id[key_id]

    def key_of(self, key_id: bytes) -> DataKey | None:
        """As `of_id`, but return the key alone."""
        owned = self.of_id(key_id)
        return None if owned is None else owned.key
