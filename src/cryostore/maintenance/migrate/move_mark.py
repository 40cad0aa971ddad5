"""Marks on stores that must not be opened, because they are the target of a migration or were moved away.

No version of any program can open a store without its token secret. So a mark takes the place of that secret. It has
the form of a wrapped key, and the name of its nonexistent master key says why the store cannot be opened. After the
name come the facts that the next `cryo migrate` needs. A store that was moved away keeps its secret under another name,
from which it can be taken back.

This module has the marks and the transactions that set and remove them. `cutover` decides when.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.queries import store_copy
from cryostore.catalog.rows import keys
from cryostore.catalog.rows.keys import WrappedRow
from cryostore.chunks.keyring import MAGIC, Keyring, unwrap
from cryostore.core.digest import sha256
from cryostore.service.store_keyring import MOVED_KEY_ID_PREFIX, TOKEN_SECRET

TOKEN_BEFORE = "token before the move"  # noqa: S105 - the name of a secret, not one
HEAD = MAGIC + b"\x01"
NAME_BYTES_MAX = 250
WORDS = {
    "into": "a store is being copied to here, and `cryo migrate` was not done yet; it comes from ",
    "away": "this store was moved, or is being moved, by `cryo migrate` to ",
}


class Mark(msgspec.Struct, frozen=True):
    """Why a store must not be opened. `store` identifies the store, `other` names the other place for people."""

    kind: Literal["into", "away"]
    move_id: str
    store: str
    other: str

    def encode(self) -> bytes:
        """Return the mark in the form of a wrapped key that nothing opens."""
        name = (
            (MOVED_KEY_ID_PREFIX + WORDS[self.kind] + self.other)
            .encode()[:NAME_BYTES_MAX]
            .decode(errors="ignore")
            .encode()
        )
        return HEAD + bytes([len(name)]) + name + msgspec.json.encode(self)


def decode(wrapped: bytes | None) -> Mark | None:
    """Return the mark in the place of a wrapped secret; None if it is no mark."""
    start = len(HEAD) + 1
    if wrapped is None or not (wrapped.startswith(HEAD) and wrapped[start:].startswith(MOVED_KEY_ID_PREFIX.encode())):
        return None
    return msgspec.json.decode(wrapped[start + wrapped[start - 1] :], type=Mark)


def standing(transaction: Transaction) -> Mark | None:
    """Return the mark of a store; None if it has none."""
    return decode(keys.secret(transaction, TOKEN_SECRET))


def wrapped_token(transaction: Transaction) -> bytes | None:
    """Return the wrapped token secret of a store, even if it was moved away; None in the target of a move."""
    wrapped = keys.secret(transaction, TOKEN_SECRET)
    mark = decode(wrapped)
    if mark is None:
        return wrapped
    return keys.secret(transaction, TOKEN_BEFORE) if mark.kind == "away" else None


def identity_of(keyring: Keyring, wrapped: bytes) -> str:
    """Return a digest that identifies a store as long as it has its catalog. Raises KeyUnavailableError."""
    return sha256(b"cryostore store\0" + unwrap(keyring, wrapped, TOKEN_SECRET.encode())).hex()


def begin_into(transaction: Transaction, mark: Mark) -> bool:
    """Mark an empty catalog as a target. Returns False if it is not empty any more."""
    if not store_copy.is_empty(transaction):
        return False
    store_copy.begin_notes(transaction)
    keys.insert_secret(transaction, TOKEN_SECRET, mark.encode())
    return True


def end_into(transaction: Transaction, mark: Mark, token: bytes) -> bool:
    """Let a complete target be opened. Returns False if that was done before."""
    if not _replace(transaction, mark.encode(), token):
        return False
    store_copy.end_notes(transaction)
    return True


def leave(transaction: Transaction, mark: Mark) -> bool:
    """Mark a source as moved away. Returns False if it was marked before."""
    token = keys.secret(transaction, TOKEN_SECRET)
    if token is None or decode(token) is not None:
        return False
    keys.delete_secret(transaction, TOKEN_BEFORE)
    keys.insert_secret(transaction, TOKEN_BEFORE, token)
    return _replace(transaction, token, mark.encode())


def take_back(transaction: Transaction) -> Mark | None:
    """Let a store that was moved away be opened again. Returns its mark; None if it was not moved away."""
    mark, token = standing(transaction), keys.secret(transaction, TOKEN_BEFORE)
    if mark is None or mark.kind != "away" or token is None or not _replace(transaction, mark.encode(), token):
        return None
    keys.delete_secret(transaction, TOKEN_BEFORE)
    return mark


def _replace(transaction: Transaction, old: bytes, new: bytes) -> bool:
    return keys.rewrap(transaction, WrappedRow("secret", TOKEN_SECRET, old, b"", None), new)
