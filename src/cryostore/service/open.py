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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from cryostore.catalog import keys, open_catalog, packs, vaults
from cryostore.catalog.database import Database, Transaction
from cryostore.chunks.blobs import Appendable, BlobStore, open_blobs
from cryostore.chunks.files import make_directory
from cryostore.chunks.keyring import FileKeyring, Keyring, open_or_create_keyring, unwrap
from cryostore.chunks.pack import cut_torn_tail, pack_key
from cryostore.chunks.records import Records
from cryostore.chunks.store import ChunkStore
from cryostore.core.errors import BlobNotFoundError, ConfigurationError, StorageUnavailableError
from cryostore.core.ids import NewId, random_id
from cryostore.core.limits import Limits
from cryostore.core.time import Clock, wall_clock
from cryostore.service.access import AccessKeys, wrapping_context
from cryostore.service.arns import Arns
from cryostore.service.context import Context
from cryostore.service.keys import VaultKeys
from cryostore.service.records import record_due, touch_store, touch_vault
from cryostore.service.service import Service
from cryostore.service.settings import Settings
from cryostore.service.tokens import Tokens

KEYRING = "keyring.json"
CATALOG = "catalog.sqlite"
CREDENTIALS = "credentials"
DEFAULT_VAULT = "Default"
TOKEN_SECRET = "token"  # noqa: S105 - the name of a secret, not one
ACCESS_KEY_ALPHABET = string.ascii_uppercase + "234567"


def open_service(
    data_dir: Path,
    *,
    clock: Clock = wall_clock,
    new_id: NewId = random_id,
    limits: Limits | None = None,
    settings: Settings | None = None,
) -> Service:
    """Open the store in `data_dir`; make it, with vault `Default` and a root access key, if there is none.

    Several processes may do this at once and share the store. Raises ConfigurationError if the directory is not a store
    this program can open, StorageUnavailableError if it cannot be read or written.
    """
    settings = settings or Settings()
    with _directory_lock(data_dir), ExitStack() as opened:
        keyring = _keyring(data_dir, new_id)
        database = open_catalog(data_dir / CATALOG)
        opened.callback(database.close)
        blobs = open_blobs(data_dir)
        opened.callback(blobs.close)
        vault_keys = VaultKeys(database, keyring)
        _fill(database, keyring, vault_keys, clock, new_id)
        _write_credentials(data_dir, database, keyring, settings)
        _recover(database, blobs)
        token_secret = database.read(lambda transaction: keys.secret(transaction, TOKEN_SECRET))
        context = Context(
            database=database,
            store=ChunkStore(blobs, new_id, pack_bytes_target=settings.pack_bytes_target),
            records=Records(blobs, keyring),
            keys=vault_keys,
            tokens=Tokens(unwrap(keyring, token_secret or b"", TOKEN_SECRET.encode())),
            arns=Arns(settings),
            clock=clock,
            new_id=new_id,
            limits=limits or Limits(),
            settings=settings,
        )
        with contextlib.suppress(StorageUnavailableError):  # to be read, a store needs no room; the duties try again
            record_due(context)
        opened.pop_all()
    return Service(context, AccessKeys(database, keyring, clock), blobs)


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


def _keyring(data_dir: Path, new_id: NewId) -> Keyring:
    path = data_dir / KEYRING
    if not path.exists() and (data_dir / CATALOG).exists():
        raise ConfigurationError(
            f"{path} is missing, and without it nothing in {data_dir} can be read",
            hint="put the keyring back from your copy of it; a new one would not open the old data",
        )
    return FileKeyring(path) if path.exists() else open_or_create_keyring(path, new_id)


def _fill(database: Database, keyring: Keyring, vault_keys: VaultKeys, clock: Clock, new_id: NewId) -> None:
    """Give a new store its secrets and its first vault; leaves an old one as it is."""
    now_ms = clock()

    def work(transaction: Transaction) -> None:
        if keys.secret(transaction, TOKEN_SECRET) is not None:
            return
        active = keyring.active()
        token_secret = secrets.token_bytes(32)
        keys.insert_secret(transaction, TOKEN_SECRET, active.wrap(token_secret, TOKEN_SECRET.encode()))
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
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).replace(path)


def _recover(database: Database, blobs: BlobStore) -> None:
    """Close the packs of processes that are gone, and cut off envelopes they did not finish."""
    for pack_id in database.read(packs.open_packs):
        try:
            alive = isinstance(blobs, Appendable) and blobs.owned(pack_key(pack_id))
            if not alive:
                cut_torn_tail(blobs, pack_id)
        except BlobNotFoundError:
            continue  # readers of its chunks will be told; nothing here can help
        if not alive:
            database.write(partial(packs.close, name=pack_id))
