"""The keyring as a store uses it: the master key in use is the one that wraps the store's token secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cryostore.catalog.database import Database, Transaction
from cryostore.catalog.rows import keys
from cryostore.chunks.keyring import Keyring, MasterKey, wrapped_key_id
from cryostore.core.errors import KeyUnavailableError

Row = TypeVar("Row")
Plain = TypeVar("Plain")
TOKEN_SECRET = "token"  # noqa: S105 - the name of a secret, not one
MOVED_KEY_ID_PREFIX = "NONE: "
"""Prefix of a reserved master key id. While a migration copies into a store, or after it moved the store away
(`maintenance.migrate.mark`), the token secret names such a key, so that the store cannot be opened. Real master keys
have UUIDs as ids, or ids that an operator wrote into the keyring by hand."""


def master_key_in_use(transaction: Transaction) -> str | None:
    """The id of the master key in use: the one that wraps the token secret. None in a store without that secret.

    A rotation changes it in a transaction. A transaction that wraps with it either commits before, so that the rotation
    finds the wrapped row, or wraps with the new key. Raises KeyUnavailableError.
    """
    wrapped = keys.secret(transaction, TOKEN_SECRET)
    return None if wrapped is None else wrapped_key_id(wrapped)


def unwrap_current(read: Callable[[], Row], unwrap_row: Callable[[Row], Plain]) -> Plain:
    """Read a wrapped row and unwrap it; read it again if its key is missing and the row has changed meanwhile.

    A rotation may have wrapped the row with a new key, and forgotten the old one, between the two steps. Raises
    KeyUnavailableError.
    """
    row = read()
    while True:
        try:
            return unwrap_row(row)
        except KeyUnavailableError:
            before, row = row, read()
            if row == before:
                raise


class StoreKeyring:
    """A keyring whose active key is the store's master key in use, whatever key the `source` calls active.

    The active key of the source comes into use when a rotation starts with it (`maintenance.key_rotation`). A unit of
    work must call `master_key`, not `active`.
    """

    def __init__(self, database: Database, source: Keyring) -> None:
        self._database = database
        self.source = source

    def active(self) -> MasterKey:
        """See Keyring."""
        return unwrap_current(lambda: self._database.read(master_key_in_use), self._or_active)

    def key(self, key_id: str) -> MasterKey:
        """See Keyring."""
        return self.source.key(key_id)

    def master_key(self, transaction: Transaction) -> MasterKey:
        """The master key in use, within a unit of work."""
        return self._or_active(master_key_in_use(transaction))

    def _or_active(self, key_id: str | None) -> MasterKey:
        return self.source.active() if key_id is None else self.source.key(key_id)
