"""Marks on stores that may not be opened now, since they are copied into, or were moved away.

A store cannot be opened without its token secret, by any version of any program. So a mark stands in the place of that
secret: it has the form of a wrapped key, and the name of the master key that is looked for in vain says why. Behind the
name stands what the next `cryo migrate` needs to know. A store that was moved away keeps its secret under another name,
from where it is taken back.

Lives here: marks, and the transactions that set and remove them. Does not live here: when that is right (`migrate`).
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
    """Why a store may not be opened. `store` tells it from others, `other` names the other place, for people."""

    kind: Literal["into", "away"]
    move_id: str
    store: str
    other: str

    def encode(self) -> bytes:
        """The mark in the form of a wrapped key that nothing opens."""
        name = (
            (MOVED_KEY_ID_PREFIX + WORDS[self.kind] + self.other)
            .encode()[:NAME_BYTES_MAX]
            .decode(errors="ignore")
            .encode()
        )
        return HEAD + bytes([len(name)]) + name + msgspec.json.encode(self)


def decode(wrapped: bytes | None) -> Mark | None:
    """The mark that stands in the place of a wrapped secret; None if none does."""
    start = len(HEAD) + 1
    if wrapped is None or not (wrapped.startswith(HEAD) and wrapped[start:].startswith(MOVED_KEY_ID_PREFIX.encode())):
        return None
    return msgspec.json.decode(wrapped[start + wrapped[start - 1] :], type=Mark)


def standing(transaction: Transaction) -> Mark | None:
    """The mark of a store; None if it has none."""
    return decode(keys.secret(transaction, TOKEN_SECRET))


def wrapped_token(transaction: Transaction) -> bytes | None:
    """The token secret of a store as it is wrapped, also if it was moved away; None in one that is copied into."""
    wrapped = keys.secret(transaction, TOKEN_SECRET)
    mark = decode(wrapped)
    if mark is None:
        return wrapped
    return keys.secret(transaction, TOKEN_BEFORE) if mark.kind == "away" else None


def identity_of(keyring: Keyring, wrapped: bytes) -> str:
    """What tells a store from all others, for as long as it has its catalog. Raises KeyUnavailableError."""
    return sha256(b"cryostore store\0" + unwrap(keyring, wrapped, TOKEN_SECRET.encode())).hex()


def begin_into(transaction: Transaction, mark: Mark) -> bool:
    """Mark an empty catalog; false if it is none, or somebody has made a store of it by now."""
    if not store_copy.is_empty(transaction):
        return False
    store_copy.begin_notes(transaction)
    keys.insert_secret(transaction, TOKEN_SECRET, mark.encode())
    return True


def end_into(transaction: Transaction, mark: Mark, token: bytes) -> bool:
    """Let a store be opened that all was copied into; false if it was let already."""
    if not _replace(transaction, mark.encode(), token):
        return False
    store_copy.end_notes(transaction)
    return True


def leave(transaction: Transaction, mark: Mark) -> bool:
    """Let a store not be opened any more, since it goes on elsewhere; false if it was marked already."""
    token = keys.secret(transaction, TOKEN_SECRET)
    if token is None or decode(token) is not None:
        return False
    keys.delete_secret(transaction, TOKEN_BEFORE)
    keys.insert_secret(transaction, TOKEN_BEFORE, token)
    return _replace(transaction, token, mark.encode())


def take_back(transaction: Transaction) -> Mark | None:
    """Let a store that was moved away be opened again; answers the mark it had, None if it had none of that kind."""
    mark, token = standing(transaction), keys.secret(transaction, TOKEN_BEFORE)
    if mark is None or mark.kind != "away" or token is None or not _replace(transaction, mark.encode(), token):
        return None
    keys.delete_secret(transaction, TOKEN_BEFORE)
    return mark


def _replace(transaction: Transaction, old: bytes, new: bytes) -> bool:
    return keys.rewrap(transaction, WrappedRow("secret", TOKEN_SECRET, old, b"", None), new)
