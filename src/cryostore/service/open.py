"""How a store in a directory is opened, and made if it is not there (`cryo serve`).

The directory: `keyring.json` (master keys), `catalog.sqlite`, `packs/`, `credentials` (the root access key, in the form
of an AWS shared credentials file). All of it is readable by its owner only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import string
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from cryostore.catalog import chunks, keys, open_catalog, packs, vaults
from cryostore.catalog.database import Database, Transaction
from cryostore.chunks.blobs import Appendable, BlobStore, open_blobs
from cryostore.chunks.files import make_directory, storage_errors
from cryostore.chunks.keyring import Keyring, KeyringSource, MasterKey, unwrap
from cryostore.chunks.pack import PREFIX as PACKS_PREFIX
from cryostore.chunks.pack import cut_torn_tail, pack_key
from cryostore.chunks.records import PREFIX as RECORDS_PREFIX
from cryostore.chunks.records import Records
from cryostore.chunks.reserve import Reserve
from cryostore.chunks.store import ChunkStore
from cryostore.core.errors import (
    BlobNotFoundError,
    ConfigurationError,
    KeyUnavailableError,
    StorageUnavailableError,
)
from cryostore.core.ids import NewId, random_id
from cryostore.core.limits import Limits
from cryostore.core.time import Clock, wall_clock
from cryostore.service.access import AccessKeys, wrapping_context
from cryostore.service.arns import Arns
from cryostore.service.context import Context
from cryostore.service.in_use import InUse
from cryostore.service.keyring import KEYRING, keyring_of
from cryostore.service.keys import TOKEN_SECRET, StoreKeyring, VaultKeys
from cryostore.service.records import record_due, touch_store, touch_vault
from cryostore.service.reserve import ReservedBlobs, ReservedDatabase
from cryostore.service.service import Service
from cryostore.service.settings import Settings
from cryostore.service.tokens import Tokens

__all__ = ["CATALOG", "CREDENTIALS", "KEYRING", "TOKEN_SECRET", "open_service"]

CATALOG = "catalog.sqlite"
CREDENTIALS = "credentials"
DEFAULT_VAULT = "Default"
ACCESS_KEY_ALPHABET = string.ascii_uppercase + "234567"


def open_service(
    data_dir: Path,
    *,
    keyring: str | None = None,
    clock: Clock = wall_clock,
    new_id: NewId = random_id,
    limits: Limits | None = None,
    settings: Settings | None = None,
    on_keyring_created: Callable[[Path], None] = lambda _: None,
) -> Service:
    """Open the store in `data_dir`; make it, with vault `Default` and a root access key, if there is none.

    `keyring` says where the master keys are, if not in the directory; `on_keyring_created` is called with the path of a
    keyring that was made. Several processes may do this at once and share the store. Raises ConfigurationError if the
    directory is not a store this program can open, StorageUnavailableError if it cannot be read or written.
    """
    settings = settings or Settings()
    reserve = Reserve(data_dir, settings.reserve_bytes)
    # Opening a store may use the reserve: on a full disk it must be possible to read and to delete.
    with _directory_lock(data_dir), reserve.spending(), ExitStack() as opened:
        in_use = InUse(data_dir)
        opened.callback(in_use.close)
        _require_catalog(data_dir)
        source = keyring_of(data_dir, keyring, new_id, on_keyring_created)
        opened.enter_context(_explained(data_dir, source))
        database = ReservedDatabase(reserve.spend(lambda: open_catalog(data_dir / CATALOG)), reserve)
        opened.callback(database.close)
        blobs = ReservedBlobs(open_blobs(data_dir), reserve)
        opened.callback(blobs.close)
        ring = StoreKeyring(database, source)
        vault_keys = VaultKeys(database, ring)
        _fill(database, ring, vault_keys, clock, new_id)
        _write_credentials(data_dir, database, ring, settings)
        _recover(database, blobs)
        reserve.take_back()
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
        # To be read, a store needs no room, and not the keys of all vaults; the duties try again.
        with contextlib.suppress(StorageUnavailableError, KeyUnavailableError):
            record_due(context)
        opened.pop_all()
    return Service(context, AccessKeys(database, ring, clock), blobs, in_use)


@contextmanager
def _directory_lock(data_dir: Path) -> Iterator[None]:
    """Let one process at a time open the store. The lock dies with its process."""
    try:
        _make_directory(data_dir)
        descriptor = os.open(data_dir / "open.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageUnavailableError(f"{data_dir} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_directory(data_dir: Path) -> None:
    """Make the directory, mode 0700, so that a power cut right after the first 200 leaves its name behind too."""
    try:
        make_directory(data_dir)
    except PermissionError:
        if not data_dir.is_dir():  # one that an administrator made, in a place whose entries we cannot flush, will do
            raise


def _require_catalog(data_dir: Path) -> None:
    """Refuse to begin a new catalog beside data that an old one knew of."""
    if not (data_dir / CATALOG).exists() and any(
        any((data_dir / place).glob("*/*")) for place in (RECORDS_PREFIX, PACKS_PREFIX)
    ):
        raise ConfigurationError(
            f"{data_dir / CATALOG} is missing, but there are backups in {data_dir}",
            hint="put the file back, or make it anew from the data: cryo rebuild-catalog",
        )


@contextmanager
def _explained(data_dir: Path, source: KeyringSource) -> Iterator[None]:
    """At the opening of a store, a key that is missing or does not fit is for the operator to put right."""
    try:
        yield
    except KeyUnavailableError as error:
        raise ConfigurationError(
            f"the keyring ({source.place}) does not open the store in {data_dir}: {error.message}",
            hint="put the keyring of this store there, or name it with --keyring; a new one would open nothing",
        ) from None


def _fill(database: Database, keyring: Keyring, vault_keys: VaultKeys, clock: Clock, new_id: NewId) -> None:
    """Give a new store its secrets and its first vault; leaves an old one as it is."""
    now_ms = clock()
    if database.read(lambda transaction: keys.secret(transaction, TOKEN_SECRET)) is not None:
        return
    active = keyring.active()

    def work(transaction: Transaction) -> None:
        if keys.secret(transaction, TOKEN_SECRET) is not None:
            return
        keys.insert_secret(transaction, TOKEN_SECRET, new_token_secret(active))
        access_key_id = "AKIA" + "".join(secrets.choice(ACCESS_KEY_ALPHABET) for _ in range(16))
        secret = secrets.token_urlsafe(30)
        wrapped = active.wrap(secret.encode(), wrapping_context(access_key_id))
        keys.insert_access_key(transaction, access_key_id=access_key_id, wrapped=wrapped, root=True, created_ms=now_ms)
        vault = vaults.insert(
            transaction,
            name=DEFAULT_VAULT,
            creator_request_id=None,
            encryption_key_arn=None,
            tags=msgspec.json.encode({}).decode(),
            created_ms=now_ms,
        )
        touch_store(transaction)
        if vault is not None:
            vault_keys.create(transaction, vault.vault_id, uuid.UUID(new_id()).bytes, now_ms=now_ms)
            touch_vault(transaction, vault.vault_id)

    database.write(work)


def new_token_secret(key: MasterKey) -> bytes:
    """A new secret to make tokens with, wrapped."""
    return key.wrap(secrets.token_bytes(32), TOKEN_SECRET.encode())


def _write_credentials(data_dir: Path, database: Database, keyring: Keyring, settings: Settings) -> None:
    """Write the root access key where AWS clients find it, unless the file is there."""
    path = data_dir / CREDENTIALS
    root = database.read(keys.root_access_key)
    if path.exists() or root is None:
        return
    secret = unwrap(keyring, root.wrapped, wrapping_context(root.access_key_id)).decode()
    text = (
        "# The root access key of this Cryostore: it may do everything. Keep it secret.\n"
        f"[default]\naws_access_key_id = {root.access_key_id}\naws_secret_access_key = {secret}\n"
        f"region = {settings.region}\n"
    )
    descriptor, temporary = tempfile.mkstemp(prefix=".credentials-", dir=data_dir)  # made with mode 0600
    try:
        with storage_errors(f"{path}"), os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _recover(database: Database, blobs: BlobStore) -> None:
    """Close the packs of processes that are gone, and cut off envelopes they did not finish."""
    for pack_id in database.read(packs.open_packs):
        try:
            alive = isinstance(blobs, Appendable) and blobs.owned(pack_key(pack_id))
            if not alive:
                # What rows point to is damage, if it is not whole, and no torn tail.
                keep_bytes = database.read(partial(chunks.last_end_in, pack_name=pack_id))
                cut_torn_tail(blobs, pack_id, keep_bytes=keep_bytes)
        except BlobNotFoundError:
            continue  # readers of its chunks will be told; nothing here can help
        if not alive:
            database.write(partial(packs.close, name=pack_id))
