"""Steps that opening a data directory and a shared store have in common: first rows, recovery, and the context.

Which directory or address is a store that may be opened is decided in `open` and `open_shared`.
"""

from __future__ import annotations

import contextlib
import secrets
import string
import uuid
from collections.abc import Callable
from functools import partial

import msgspec

from cryostore.catalog.database import Database, Transaction
from cryostore.catalog.rows import chunks, keys, packs, vaults
from cryostore.chunks.blobs import Appendable, BlobStore
from cryostore.chunks.disk_reserve import NO_RESERVE, DiskReserve
from cryostore.chunks.keyring import MasterKey, unwrap
from cryostore.chunks.packs.format import pack_key
from cryostore.chunks.packs.recovery import cut_torn_tail
from cryostore.chunks.records import Records
from cryostore.chunks.store import ChunkStore
from cryostore.core.errors import (
    BlobNotFoundError,
    ConfigurationError,
    KeyUnavailableError,
    StorageUnavailableError,
)
from cryostore.core.ids import NewId
from cryostore.core.limits import Limits
from cryostore.core.time import Clock
from cryostore.service.access import access_key_context
from cryostore.service.arns import Arns
from cryostore.service.context import Context
from cryostore.service.recording import mark_store_changed, mark_vault_changed, write_due_records
from cryostore.service.settings import Settings
from cryostore.service.store_keyring import MOVED_KEY_ID_PREFIX, TOKEN_SECRET, StoreKeyring
from cryostore.service.tokens import Tokens
from cryostore.service.unknown_commits import NAMES_AT_OPENING, count_unknown_commits
from cryostore.service.vault_keys import VaultKeys

DEFAULT_VAULT = "Default"
ACCESS_KEY_ALPHABET = string.ascii_uppercase + "234567"


def keyring_refused_error(place: str, keyring: str, error: KeyUnavailableError) -> ConfigurationError:
    """The error for an operator who opens the store at `place` with a keyring that lacks its key, or a moved store."""
    _, moved, words = error.message.partition(MOVED_KEY_ID_PREFIX)
    if moved:
        return ConfigurationError(
            f"{place} cannot be opened: {words}",
            hint="finish that with `cryo migrate`, use the other store, or take it back (`cryo migrate --help`)",
        )
    return ConfigurationError(
        f"the keyring ({keyring}) does not open the store in {place}: {error.message}",
        hint="put the keyring of this store there, or name it with --keyring; a new one would open nothing",
    )


def fill_new_store(
    database: Database,
    vault_keys: VaultKeys,
    clock: Clock,
    new_id: NewId,
    more: Callable[[Transaction], None] = lambda _: None,
) -> None:
    """Write the first rows of a new store: secrets, root access key, first vault, and the rows that `more` writes.

    One transaction does all of it; a store that has them stays as it is. Raises KeyUnavailableError,
    StorageUnavailableError.
    """
    now_ms = clock()
    if database.read(lambda transaction: keys.secret(transaction, TOKEN_SECRET)) is not None:
        return
    active = vault_keys.keyring.active()

    def work(transaction: Transaction) -> None:
        if keys.secret(transaction, TOKEN_SECRET) is not None:
            return
        keys.insert_secret(transaction, TOKEN_SECRET, new_token_secret(active))
        access_key_id = "AKIA" + "".join(secrets.choice(ACCESS_KEY_ALPHABET) for _ in range(16))
        secret = secrets.token_urlsafe(30)
        wrapped = active.wrap(secret.encode(), access_key_context(access_key_id))
        keys.insert_access_key(transaction, access_key_id=access_key_id, wrapped=wrapped, root=True, created_ms=now_ms)
        vault = vaults.insert(
            transaction,
            name=DEFAULT_VAULT,
            creator_request_id=None,
            encryption_key_arn=None,
            tags=msgspec.json.encode({}).decode(),
            created_ms=now_ms,
        )
        mark_store_changed(transaction)
        if vault is not None:
            vault_keys.create(transaction, vault.vault_id, uuid.UUID(new_id()).bytes, now_ms=now_ms)
            mark_vault_changed(transaction, vault.vault_id)
        more(transaction)

    database.write(work)


def new_token_secret(key: MasterKey) -> bytes:
    """A new wrapped secret for tokens."""
    return key.wrap(secrets.token_bytes(32), TOKEN_SECRET.encode())


def recover_packs(database: Database, blobs: BlobStore) -> None:
    """Close the packs of dead processes, and cut off the envelopes that these did not finish."""
    for pack_id in database.read(packs.open_packs):
        try:
            alive = isinstance(blobs, Appendable) and blobs.owned(pack_key(pack_id))
            if not alive:
                # An incomplete envelope that a row points to is damage, not a torn tail.
                keep_bytes = database.read(partial(chunks.last_end_in, pack_name=pack_id))
                cut_torn_tail(blobs, pack_id, keep_bytes=keep_bytes)
        except BlobNotFoundError:
            continue  # readers of its chunks get an error; nothing can be done here
        if not alive:
            database.write(partial(packs.close, name=pack_id))


def build_context(
    database: Database,
    blobs: BlobStore,
    vault_keys: VaultKeys,
    *,
    clock: Clock,
    new_id: NewId,
    limits: Limits | None,
    settings: Settings,
    reserve: DiskReserve = NO_RESERVE,
) -> Context:
    """Build the context of the handlers on a store that has its first rows. Writes due records where it can.

    Raises KeyUnavailableError, StorageUnavailableError.
    """
    ring: StoreKeyring = vault_keys.keyring
    token_secret = database.read(lambda transaction: keys.secret(transaction, TOKEN_SECRET))
    context = Context(
        database=database,
        store=ChunkStore(blobs, new_id, pack_bytes_target=settings.pack_bytes_target),
        records=Records(blobs, ring),
        keys=vault_keys,
        tokens=Tokens(unwrap(ring, token_secret or b"", TOKEN_SECRET.encode())),
        arns=Arns(settings),
        clock=clock,
        new_id=new_id,
        limits=limits or Limits(),
        settings=settings,
        reserve=reserve,
    )
    with contextlib.suppress(StorageUnavailableError):
        count_unknown_commits(database, context.records, limit=NAMES_AT_OPENING)
    # Reading a store needs neither free space nor the keys of all vaults; background tasks try again.
    with contextlib.suppress(StorageUnavailableError, KeyUnavailableError):
        write_due_records(context)
    return context
