"""Rotation of master keys: wraps again everything that old keys wrap, without touching any data.

These rules make sure that the keyring has every key that is needed:

1. The new key is durably in the keyring before anything is wrapped with it. Old keys stay in the keyring.
2. A rotation begins with one transaction that wraps the token secret with the new key (`begin_rotation`). From then on
   the new key is in use: every process reads which key is in use in the transaction in which it wraps something, or
   after it (`service.store_keyring`). So the number of things that old keys wrap only decreases.
3. Then all other rows follow, one page per transaction, each row only if it is unchanged since it was read. The
   transaction checks that the key is still in use, so that the later of two rotations wins, and marks the records of
   changed rows as due.
4. The rotation is finished when no row and no record is wrapped with another key (`key_uses`). Only a key without uses
   may be removed from the keyring.
5. On a shared store, a key comes into use only when every live node holds it. Until then the rotation stops after its
   first phase and names the nodes that lack the key. The transaction of rule 2 checks this again; a node reports before
   it serves requests.
6. One process at a time rotates keys or removes a key from the keyring: it holds a claim (`claims`). So a rotation that
   was suspended cannot begin with a key that was removed meanwhile. Removing a key late does no harm: by rule 2, and
   because only a rotation brings a key into use, nothing has begun to need it.

After an interruption at any point, the store opens with the present keys, and another run does the rest.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from cryostore.catalog.database import Transaction
from cryostore.catalog.processes import nodes
from cryostore.catalog.rows import keys, records
from cryostore.catalog.rows.keys import WRAPPED, WrappedRow
from cryostore.catalog.rows.records import VAULT, RecordKey
from cryostore.chunks.keyring import EditableKeyring, Keyring, KeyringSource, MasterKey, unwrap
from cryostore.core import interrupts
from cryostore.core.errors import ConfigurationError, CryostoreError, KeyUnavailableError
from cryostore.maintenance.claims import KEY_ROTATION, Progress, claimed
from cryostore.maintenance.key_uses import (
    DAMAGED,
    RECORD,
    ROWS_PER_PAGE,
    KeyUses,
    count_key_uses,
    recorded_by,
    wrapped_by,
    wrapped_pages,
    wrapped_records,
)
from cryostore.maintenance.nodes import REPORT_SECONDS, live_nodes
from cryostore.service import Context
from cryostore.service.access import access_key_context
from cryostore.service.operations.vaults import vault_by_name
from cryostore.service.recording import mark_store_changed, mark_vault_changed, update_record
from cryostore.service.store_keyring import TOKEN_SECRET, master_key_in_use
from cryostore.service.vault_keys import vault_key_context

POLL_SECONDS = 0.5
WAIT_FOR_REPORTS_SECONDS = 1.5 * REPORT_SECONDS
"""How long a rotation waits for nodes by default: as long as a node needs to read a new key and report it."""
CONTEXTS: dict[str, Callable[[bytes], bytes]] = {
    "secret": bytes,
    "access_key": lambda label: access_key_context(label.decode()),
    "vault_key": vault_key_context,
}


class RotationSupersededError(CryostoreError):
    """Another rotation has begun since then, with another key."""


@dataclass
class RotationResult:
    """Counts of what a rotation did, by kind. `unreadable` rows stay as they are: no key of the keyring opens them."""

    key_id: str = ""
    added: bool = False
    rewrapped: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    """How many things other keys still wrap, by key id. Empty once the rotation is finished."""
    due: int = 0
    """The number of records that are still to be written."""
    lacking: list[str] = field(default_factory=list)
    """The live nodes that do not hold the new key. It comes into use only when all hold it."""

    @property
    def is_finished(self) -> bool:
        """Whether no other key is needed any more."""
        return not self.left and not self.due and not self.lacking


def rotate_master_key(
    context: Context, outcome: RotationResult, *, wait_seconds: float = WAIT_FOR_REPORTS_SECONDS
) -> Iterator[Progress]:
    """Bring a new master key into use, or finish an earlier rotation. May be interrupted and repeated.

    The new key is the active key of the keyring. If that key is already in use and no earlier rotation is unfinished, a
    keyring that Cryostore can edit gets another key; for any other keyring, ConfigurationError asks the operator to
    change it. The key comes into use only if all live nodes report within `wait_seconds` that they hold it.

    Raises ClaimHeldError if another process rotates, ClaimLostError if another process took over,
    RotationSupersededError, StorageUnavailableError, KeyUnavailableError.
    """
    with claimed(context, KEY_ROTATION) as claim:
        yield from claim.saying(_rotate(claim.context, outcome, wait_seconds))


def _rotate(context: Context, outcome: RotationResult, wait_seconds: float) -> Generator[Progress, None, None]:
    source = context.keys.keyring.source
    if isinstance(source, EditableKeyring):
        source.sync()
    key = source.active()
    if not any(name != key.key_id and _has(source, name) for name in count_key_uses(context).by_key):
        key, outcome.added = _new_key(context, source), True
    outcome.key_id = key.key_id
    yield from _wait_for_nodes(context, key, outcome, wait_seconds)
    yield Progress("begin", 0)
    if not outcome.lacking:
        begin_rotation(context, key, outcome)
    if outcome.lacking:
        return
    for table in WRAPPED:
        yield from _rewrap(context, table, key, outcome)
    yield from _record(context, key, outcome)
    found = count_key_uses(context)
    outcome.left = {name: counts.total() for name, counts in found.by_key.items() if name != key.key_id}
    outcome.due = found.due


def _wait_for_nodes(
    context: Context, key: MasterKey, outcome: RotationResult, wait_seconds: float
) -> Iterator[Progress]:
    """Wait until all live nodes hold a key, for at most `wait_seconds`."""
    end = monotonic() + wait_seconds
    while True:
        outcome.lacking = nodes.lacking(live_nodes(context), key.key_id)
        if not outcome.lacking or monotonic() >= end or interrupts.is_requested():
            return
        yield Progress("wait for nodes", len(outcome.lacking))
        interrupts.sleep(POLL_SECONDS)


def rotate_vault_key(context: Context, vault_name: str) -> int:
    """Give a vault a new data key for new chunks. Returns how many data keys the vault has then.

    Once the key is recorded, servers use it within `SEALING_KEY_CACHE_SECONDS`. Older keys still open what they
    sealed. Raises ResourceNotFoundException, KeyUnavailableError, StorageUnavailableError.
    """
    now_ms, key_id = context.clock(), uuid.UUID(context.new_id()).bytes
    vault = context.database.read(lambda transaction: vault_by_name(transaction, vault_name))
    update_record(context, RecordKey(VAULT, vault.vault_id))  # so that at most the newest key is not on record
    context.keys.prepare()

    def work(transaction: Transaction) -> int:
        vault_by_name(transaction, vault_name)
        context.keys.create(transaction, vault.vault_id, key_id, now_ms=now_ms)
        mark_vault_changed(transaction, vault.vault_id)
        return len(keys.vault_keys_in_full(transaction, vault.vault_id))

    number = context.database.write(work)
    update_record(context, RecordKey(VAULT, vault.vault_id))
    return number


def forget_master_key(context: Context, key_id: str) -> None:
    """Remove a master key from the keyring, if nothing in this store needs it.

    Raises ConfigurationError if something needs it or Cryostore cannot edit the keyring, ClaimHeldError during a
    rotation, StorageUnavailableError.
    """
    with claimed(context, KEY_ROTATION) as claim:
        claim.doing = f"forget {key_id}"
        _forget(claim.context, key_id)


def _forget(context: Context, key_id: str) -> None:
    source = context.keys.keyring.source
    if isinstance(source, KeyringSource):
        document = source.document()
        if key_id not in document.keys:
            raise ConfigurationError(f"the keyring has no master key {key_id}", hint="`cryo key list` shows its keys")
        if key_id == document.active.key_id:
            raise ConfigurationError(
                f"master key {key_id} is the active key", hint="run `cryo key rotate` to make another key active"
            )
    for _ in _record(context, context.keys.keyring.active(), RotationResult()):
        pass
    found = count_key_uses(context)
    if key_id in found.by_key or DAMAGED in found.by_key or found.due:
        raise ConfigurationError(
            f"master key {key_id} is needed, or may be: {_words(found, key_id)}", hint="run `cryo key rotate` first"
        )
    if not isinstance(source, EditableKeyring):
        raise ConfigurationError(
            f"nothing in this store needs master key {key_id}, but its keyring cannot be changed from here",
            hint="take the key out of the keyring document where that is kept",
        )
    context.database.write(lambda _: None)  # checks the claim
    source.remove(key_id)


def _words(found: KeyUses, key_id: str) -> str:
    counts = found.by_key.get(key_id, Counter()) + found.by_key.get(DAMAGED, Counter())
    parts = [f"{number} {kind}" for kind, number in sorted(counts.items())]
    return ", ".join([*parts, *([f"{found.due} records to be written"] if found.due else [])])


def _new_key(context: Context, source: Keyring) -> MasterKey:
    if isinstance(source, EditableKeyring):
        return source.add(context.new_id)
    where = source.place if isinstance(source, KeyringSource) else "its source"
    raise ConfigurationError(
        f"everything is wrapped with master key {source.active().key_id}, the active one of the keyring ({where})",
        hint="make a document with another active key (`cryo key export --with-new-key --to FILE`), put it in the place"
        " of the present one, restart servers that read it from a variable, and repeat this command",
    )


def begin_rotation(context: Context, key: MasterKey, outcome: RotationResult) -> None:
    """Bring a master key into use: from now on it wraps everything new. Does nothing while a live node lacks it."""
    while True:
        (row,) = (one for one in context.database.read(_secrets) if one.name == TOKEN_SECRET)
        if wrapped_by(row.wrapped) == key.key_id:
            return
        wrapped = key.wrap(unwrap(context.keys.keyring, row.wrapped, _context(row)), _context(row))
        now_ms = context.clock()

        def work(transaction: Transaction) -> bool:
            outcome.lacking = nodes.lacking(nodes.live(transaction, now_ms=now_ms), key.key_id)  # noqa: B023 - at once
            return not outcome.lacking and keys.rewrap(transaction, row, wrapped)  # noqa: B023 - as above

        if context.database.write(work):
            _count(outcome.rewrapped, row.table, 1)
            return
        if outcome.lacking:
            return


def _secrets(transaction: Transaction) -> list[WrappedRow]:
    return keys.wrapped_page(transaction, "secret", None, ROWS_PER_PAGE)


def _rewrap(context: Context, table: str, key: MasterKey, outcome: RotationResult) -> Iterator[Progress]:
    """Wrap again the rows of a table that another key wraps."""
    done = 0
    for rows in wrapped_pages(context, table):
        old = [row for row in rows if wrapped_by(row.wrapped) != key.key_id]
        opened = [(row, plain) for row in old if (plain := _open(context, row)) is not None]
        new = [(row, key.wrap(plain, _context(row))) for row, plain in opened]
        changed = context.database.write(partial(_replace, key=key, pairs=new)) if new else 0
        _count(outcome.rewrapped, table, changed)
        _count(outcome.unreadable, table, len(old) - len(opened))
        done += len(rows)
        yield Progress(f"wrap {table}", done)


def _replace(transaction: Transaction, key: MasterKey, pairs: list[tuple[WrappedRow, bytes]]) -> int:
    """Store the newly wrapped bytes of rows that are unchanged. Returns how many rows were changed."""
    if master_key_in_use(transaction) != key.key_id:
        raise RotationSupersededError(
            "another rotation has begun since then", hint="let that one finish, or repeat this command"
        )
    changed = [row for row, wrapped in pairs if keys.rewrap(transaction, row, wrapped)]
    for vault_id in {row.vault_id for row in changed}:
        if vault_id is None:
            mark_store_changed(transaction)
        else:
            mark_vault_changed(transaction, vault_id)
    return len(changed)


def _record(context: Context, key: MasterKey, outcome: RotationResult) -> Iterator[Progress]:
    """Write again the records that are due or that another key wraps."""
    for done, row in enumerate(wrapped_records(context)):
        if row.recorded >= row.changes:
            if recorded_by(context, row) in (None, key.key_id):
                continue
            context.database.write(lambda transaction: records.touch_known(transaction, row.key))  # noqa: B023 - at once
        update_record(context, row.key)
        _count(outcome.rewrapped, RECORD, 1)
        yield Progress(RECORD, done)


def _has(keyring: Keyring, key_id: str) -> bool:
    try:
        keyring.key(key_id)
    except KeyUnavailableError:
        return False
    return True


def _open(context: Context, row: WrappedRow) -> bytes | None:
    try:
        return unwrap(context.keys.keyring, row.wrapped, _context(row))
    except KeyUnavailableError:
        return None


def _context(row: WrappedRow) -> bytes:
    return CONTEXTS[row.table](row.label)


def _count(counts: dict[str, int], name: str, number: int) -> None:
    if number:
        counts[name] = counts.get(name, 0) + number
