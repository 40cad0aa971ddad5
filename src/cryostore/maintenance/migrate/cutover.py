"""Cutover of a migration: when the source and the target may be opened, and when no longer.

This module decides whether a move may begin, may continue, or is done. The copying in between is in `run`.

Marks are on stores that must not be opened, because they are the target of a migration or were moved away. No version
of any program can open a store without its token secret. So a mark takes the place of that secret. It has the form of a
wrapped key, and the name of its nonexistent master key says why the store cannot be opened. After the name come the
facts that the next `cryo migrate` needs. A store that was moved away keeps its secret under another name, from which it
can be taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.queries import store_copy
from cryostore.catalog.rows import keys
from cryostore.catalog.rows.keys import WrappedRow
from cryostore.chunks.keyring import MAGIC, Keyring, unwrap, wrapped_key_id
from cryostore.chunks.marker import Marker, newest_marker, put_marker
from cryostore.chunks.packs.format import PREFIX as PACKS_PREFIX
from cryostore.chunks.records import PREFIX as RECORDS_PREFIX
from cryostore.core.digest import sha256
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from cryostore.core.ids import NewId
from cryostore.maintenance.migrate.side import Side
from cryostore.service.opening.shared_store import IDENTITY, INIT_HINT, Identity, require_marker
from cryostore.service.settings import Settings
from cryostore.service.store_keyring import MOVED_KEY_ID_PREFIX, TOKEN_SECRET

EMPTY_HINT = "choose an empty place"
FIRST = 1
"""The number of the first marker in the blob store of a shared target."""
TOKEN_BEFORE = "token before the move"  # noqa: S105 - the name of a secret, not one
HEAD = MAGIC + b"\x01"
NAME_BYTES_MAX = 250
WORDS = {
    "into": "a store is being copied to here, and `cryo migrate` was not done yet; it comes from ",
    "away": "this store was moved, or is being moved, by `cryo migrate` to ",
}


@dataclass(frozen=True)
class Move:
    """A move that may continue: its id, its store, and the token secret that opens the target at the end."""

    move_id: str
    store: str
    token: bytes


def begin_move(source: Side, target: Side, keyring: Keyring, new_id: NewId) -> Move | None:
    """Begin a move, or find the one that was begun. Returns None if it is already done. May be repeated.

    Afterwards the target is marked, and nodes can no longer open a shared source. Raises ConfigurationError, without
    any change, if the source or the target is not in the required state.
    """
    token = _token(source)
    store = _store(source, keyring, token)
    away, there = source.read(mark_of), target.read(mark_of)
    _require_one_schema(source, target)
    if source.shared_blobs is not None and away is None:
        _require_current(source, keyring)
    _require_arns(source, target, keyring)
    if there is None and _is_done(target, keyring, store, away):
        return None
    if there is None:
        _require_empty(source, target, away)
        there = Mark("into", new_id(), store, source.name)
        if not target.write(partial(begin_into, mark=there)):
            raise _taken(target)
    _require_same_move(source, target, store, away, there)
    if target.shared_blobs is not None:
        _put_marker(target, _marker(source, keyring, there.move_id))
    move = Move(there.move_id, store, token)
    if source.shared_blobs is not None:
        _shut(source, target, keyring, move)
    return move


def complete_move(source: Side, target: Side, keyring: Keyring, move: Move) -> None:
    """Mark the source as moved, then let the target be opened. May be repeated."""
    _leave(source, target, move)
    mark = target.read(mark_of)
    if mark is None:
        return
    identity = _identity(source, target, keyring, move)

    def work(transaction: Transaction) -> None:
        if end_into(transaction, mark, move.token) and identity is not None:
            keys.insert_secret(transaction, IDENTITY, identity)

    target.write(work)


def take_back_move(source: Side, keyring: Keyring | None) -> str:
    """Let a store be used again that was moved away, or was being moved. Returns where it was moved to.

    Only a shared store needs its keyring. Raises ConfigurationError if the store was not moved, or if another catalog
    has taken over its blob store.
    """
    mark, token = source.read(mark_of), source.read(wrapped_token)
    if mark is None or mark.kind != "away" or token is None:
        raise ConfigurationError(f"{source.name} was not moved away, so there is nothing to take back")
    identity = None if keyring is None else _raised_identity(source, keyring, token, mark)

    def work(transaction: Transaction) -> None:
        if take_back(transaction) is not None and identity is not None:
            keys.rewrap(transaction, *identity)

    source.write(work)
    return mark.other


def _token(source: Side) -> bytes:
    token = source.read(wrapped_token)
    if token is not None:
        return token
    mark = source.read(mark_of)
    if mark is None:
        raise ConfigurationError(f"{source.name} holds no store")
    raise ConfigurationError(
        f"{source.name} is the unfinished target of a move from {mark.other}",
        hint="finish that move first: repeat its command",
    )


def _store(source: Side, keyring: Keyring, token: bytes) -> str:
    try:
        return identity_of(keyring, token)
    except KeyUnavailableError as error:
        raise ConfigurationError(
            f"the keyring does not open {source.name}: {error.message}",
            hint="copy the keyring of that store to where the target will find it, and name that place with --keyring",
        ) from None


def _require_one_schema(source: Side, target: Side) -> None:
    here, there = source.read(store_copy.schema_version), target.read(store_copy.schema_version)
    if here != there:
        raise ConfigurationError(f"{source.name} has schema version {here}, {target.name} has {there}")


def _require_current(source: Side, keyring: Keyring) -> None:
    """Refuse a shared store whose catalog and blob store do not belong together."""
    kept = _kept(source, keyring)
    if kept is None or not kept.bound:
        raise ConfigurationError(f"the preparation of {source.name} was not finished", hint=INIT_HINT)
    require_marker(kept, _newest_marker(source, known=kept.number), source.shared_blobs or "")


def _is_done(target: Side, keyring: Keyring, store: str, away: Mark | None) -> bool:
    """Whether the target is already the complete store that is being moved."""
    token = target.read(wrapped_token)
    if token is None or away is None or away.other != target.name:
        return False
    try:
        return identity_of(keyring, token) == store
    except KeyUnavailableError:
        return False


def _require_empty(source: Side, target: Side, away: Mark | None) -> None:
    if away is not None:
        raise ConfigurationError(
            f"{source.name} was moved to {away.other}, or is being moved there",
            hint="repeat that command, or let the store be used again with `cryo migrate --take-back`",
        )
    if not target.read(store_copy.is_empty):
        raise _taken(target)
    if target.has_any(PACKS_PREFIX) or target.has_any(RECORDS_PREFIX) or _newest_marker(target) is not None:
        raise ConfigurationError(f"{target.name} already holds the data of a store", hint=EMPTY_HINT)


def _taken(target: Side) -> ConfigurationError:
    return ConfigurationError(f"{target.name} already holds a store", hint=EMPTY_HINT)


def _require_same_move(source: Side, target: Side, store: str, away: Mark | None, there: Mark) -> None:
    if there.kind == "away":
        raise ConfigurationError(f"{target.name} is a store that was moved to {there.other}", hint=EMPTY_HINT)
    if there.store != store:
        raise ConfigurationError(
            f"another store is being copied to {target.name}, from {there.other}",
            hint="finish that move, or choose another target",
        )
    if away is not None and away.move_id != there.move_id:
        raise ConfigurationError(
            f"{source.name} was moved to {away.other}", hint="cryo migrate --take-back lets it be used again"
        )


def _require_arns(source: Side, target: Side, keyring: Keyring) -> None:
    """Refuse a target in which the ARNs of the store would change."""
    here, there = _arns_of(source, keyring), Settings()
    if target.shared_blobs is None and here != (there.region, there.account_id):
        raise ConfigurationError(
            f"the ARNs of {source.name} name region {here[0]} and account {here[1]}; in a directory they always name"
            f" {there.region} and {there.account_id}",
            hint="clients that know recovery points by their ARNs would not find them: leave the store where it is",
        )


def _arns_of(source: Side, keyring: Keyring) -> tuple[str, str]:
    """Return the region and the account id of the ARNs of a store."""
    kept, unsaid = _kept(source, keyring), Settings()
    return (unsaid.region, unsaid.account_id) if kept is None else (kept.region, kept.account_id)


def _marker(source: Side, keyring: Keyring, move_id: str) -> Marker:
    """Return the marker for the blob store of a shared target."""
    return Marker(move_id, FIRST, move_id, *_arns_of(source, keyring))


def _newest_marker(side: Side, known: int = 0) -> Marker | None:
    with side.named():
        return newest_marker(side.blobs, known=known)


def _put_marker(side: Side, marker: Marker) -> None:
    with side.named():
        if not put_marker(side.blobs, marker):
            raise ConfigurationError(f"another move from or to {side.name} has begun", hint=EMPTY_HINT)


def _identity(source: Side, target: Side, keyring: Keyring, move: Move) -> bytes | None:
    """Return the wrapped identity row with which the catalog of a shared target names its marker."""
    if target.shared_blobs is None:
        return None
    marker = _marker(source, keyring, move.move_id)
    identity = msgspec.structs.replace(Identity.of_marker(marker, target.shared_blobs), bound=True)
    return keyring.key(wrapped_key_id(move.token)).wrap(msgspec.json.encode(identity), IDENTITY.encode())


def _shut(source: Side, target: Side, keyring: Keyring, move: Move) -> None:
    """Stop nodes from opening a shared source, and let the nodes that serve it notice and stop."""
    _leave(source, target, move)
    kept = _kept(source, keyring)
    if kept is not None:
        mine = Marker(kept.store_id, kept.number + 1, move.move_id, kept.region, kept.account_id)
        _put_marker(source, mine)


def _leave(source: Side, target: Side, move: Move) -> None:
    mark = Mark("away", move.move_id, move.store, target.name)
    if source.write(partial(leave, mark=mark)):
        return
    standing = source.read(mark_of)
    if standing is None or standing.move_id != move.move_id:
        raise ConfigurationError(f"{source.name} was moved to another place meanwhile")


def _kept(source: Side, keyring: Keyring) -> Identity | None:
    """Return the identity of a shared store from its catalog."""
    wrapped = source.read(partial(keys.secret, name=IDENTITY))
    if wrapped is None:
        return None
    return msgspec.json.decode(unwrap(keyring, wrapped, IDENTITY.encode()), type=Identity)


def _raised_identity(source: Side, keyring: Keyring, token: bytes, mark: Mark) -> tuple[WrappedRow, bytes] | None:
    """Return the identity row of a shared source and its new bytes, which match the marker that shut its nodes out.

    Returns None if it matches already. Raises ConfigurationError if another catalog has taken over the blob store.
    """
    kept, wrapped = _kept(source, keyring), source.read(partial(keys.secret, name=IDENTITY))
    if kept is None or wrapped is None:
        return None
    marker = _newest_marker(source, known=kept.number)
    if marker is None or (marker.store_id, marker.token) != (kept.store_id, mark.move_id):
        require_marker(kept, marker, source.shared_blobs or "")
        return None
    raised = msgspec.structs.replace(kept, number=marker.number, token=marker.token)
    new = keyring.key(wrapped_key_id(token)).wrap(msgspec.json.encode(raised), IDENTITY.encode())
    return WrappedRow("secret", IDENTITY, wrapped, b"", None), new


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


def decode_mark(wrapped: bytes | None) -> Mark | None:
    """Return the mark in the place of a wrapped secret; None if it is no mark."""
    start = len(HEAD) + 1
    if wrapped is None or not (wrapped.startswith(HEAD) and wrapped[start:].startswith(MOVED_KEY_ID_PREFIX.encode())):
        return None
    return msgspec.json.decode(wrapped[start + wrapped[start - 1] :], type=Mark)


def mark_of(transaction: Transaction) -> Mark | None:
    """Return the mark of a store; None if it has none."""
    return decode_mark(keys.secret(transaction, TOKEN_SECRET))


def wrapped_token(transaction: Transaction) -> bytes | None:
    """Return the wrapped token secret of a store, even if it was moved away; None in the target of a move."""
    wrapped = keys.secret(transaction, TOKEN_SECRET)
    mark = decode_mark(wrapped)
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
    if token is None or decode_mark(token) is not None:
        return False
    keys.delete_secret(transaction, TOKEN_BEFORE)
    keys.insert_secret(transaction, TOKEN_BEFORE, token)
    return _replace(transaction, token, mark.encode())


def take_back(transaction: Transaction) -> Mark | None:
    """Let a store that was moved away be opened again. Returns its mark; None if it was not moved away."""
    mark, token = mark_of(transaction), keys.secret(transaction, TOKEN_BEFORE)
    if mark is None or mark.kind != "away" or token is None or not _replace(transaction, mark.encode(), token):
        return None
    keys.delete_secret(transaction, TOKEN_BEFORE)
    return mark


def _replace(transaction: Transaction, old: bytes, new: bytes) -> bool:
    return keys.rewrap(transaction, WrappedRow("secret", TOKEN_SECRET, old, b"", None), new)
