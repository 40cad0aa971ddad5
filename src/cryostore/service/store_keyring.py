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
"""What the name of the master key begins with that the token secret of a store names while it may not be opened, since
it is copied into, or was moved away (`maintenance.migrate.mark`). No master key has such a name: they are named by
UUIDs, or by whoever writes keyrings by hand."""


def master_key_in_use(transaction: Transaction) -> str | None:
    """The id of the master key that is in use: the one that wraps the token secret; None in a store without one.

    A rotation changes it in a transaction, so whoever wraps with it in a transaction of its own either comes first, and
    the rotation finds what was wrapped, or wraps with the new key. Raises KeyUnavailableError.
    """
    wrapped = keys.secret(transaction, TOKEN_SECRET)
    return None if wrapped is None else wrapped_key_id(wrapped)


def unwrap_current(read: Callable[[], Row], unwrap_row: Callable[[Row], Plain]) -> Plain:
    """Unwrap what was read; and again, if its key is not to be had and something else is there to be read by now.

    For between the two it may have been wrapped anew, and the old key forgotten. Raises KeyUnavailableError.
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
    """A keyring as a store uses it: what wraps is the key in use, whichever of its keys the source calls active.

    The source's active key comes into use when a rotation begins with it (`maintenance.key_rotation`). No unit of work
    may call `active`; it has `master_key`.
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
        """As `active`, within a unit of work."""
        return self._or_active(master_key_in_use(transaction))

    def _or_active(self, key_id: str | None) -> MasterKey:
        return self.source.active() if key_id is None else self.source.key(key_id)
