"""Opening a store in a data directory, which is created if it is missing (`cryo serve`).

The directory holds `keyring.json` (master keys), `catalog.sqlite`, `packs/`, and `credentials` (the root access key as
an AWS shared credentials file). Only its owner can read it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cryostore.catalog import open_catalog
from cryostore.catalog.database import Database
from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.disk_reserve import DiskReserve
from cryostore.chunks.durable_files import make_directory
from cryostore.chunks.keyring import KeyringSource
from cryostore.chunks.packs.format import PREFIX as PACKS_PREFIX
from cryostore.chunks.records import PREFIX as RECORDS_PREFIX
from cryostore.core.errors import ConfigurationError, KeyUnavailableError, StorageUnavailableError
from cryostore.core.ids import NewId, random_id
from cryostore.core.limits import Limits
from cryostore.core.time import Clock, wall_clock
from cryostore.service.access import AccessKeys
from cryostore.service.opening.assembly import (
    build_context,
    fill_new_store,
    keyring_refused_error,
    new_token_secret,
    recover_packs,
)
from cryostore.service.opening.data_directory import (
    KEYRING,
    InUse,
    open_or_create_keyring_of,
    root_key,
    write_credentials,
)
from cryostore.service.reserve import ReservedBlobs, ReservedDatabase
from cryostore.service.service import Service
from cryostore.service.settings import Settings
from cryostore.service.store_keyring import TOKEN_SECRET, StoreKeyring
from cryostore.service.vault_keys import VaultKeys

__all__ = ["CATALOG", "CREDENTIALS", "KEYRING", "TOKEN_SECRET", "new_token_secret", "open_service"]

CATALOG = "catalog.sqlite"
CREDENTIALS = "credentials"


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
    """Open the store in `data_dir`; create it, with vault `Default` and a root access key, if there is none.

    `keyring` names the keyring if it is not in the directory; `on_keyring_created` is called with the path of a new
    keyring. Several processes may open a store at once and share it. Raises ConfigurationError if the directory is not
    a store that this program can open, StorageUnavailableError if it cannot be read or written.
    """
    settings = settings or Settings()
    reserve = DiskReserve(data_dir, settings.reserve_bytes)
    # Opening may use the reserve: on a full disk, reads and deletes must be possible.
    with _directory_lock(data_dir), reserve.spending(), ExitStack() as opened:
        in_use = InUse(data_dir)
        opened.callback(in_use.close)
        _require_catalog(data_dir)
        source = open_or_create_keyring_of(data_dir, keyring, new_id, on_keyring_created)
        opened.enter_context(_explained(data_dir, source))
        database = ReservedDatabase(reserve.spend(lambda: open_catalog(data_dir / CATALOG)), reserve)
        opened.callback(database.close)
        blobs = ReservedBlobs(open_blobs(data_dir), reserve)
        opened.callback(blobs.close)
        ring = StoreKeyring(database, source)
        vault_keys = VaultKeys(database, ring)
        fill_new_store(database, vault_keys, clock, new_id)
        _write_credentials(data_dir, database, ring, settings)
        recover_packs(database, blobs)
        reserve.take_back()
        context = build_context(
            database,
            blobs,
            vault_keys,
            clock=clock,
            new_id=new_id,
            limits=limits,
            settings=settings,
            reserve=reserve,
        )
        opened.pop_all()
    return Service(context, AccessKeys(database, ring, clock), blobs, release=in_use.close)


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
    """Create the directory, mode 0700, so durably that its name survives a power loss after the first 200.

    For an existing directory the blob store does that.
    """
    if data_dir.is_dir():
        return
    try:
        make_directory(data_dir)
    except PermissionError:
        if not data_dir.is_dir():  # an administrator made it where we may not flush
            raise


def _require_catalog(data_dir: Path) -> None:
    """Raise ConfigurationError rather than create a catalog beside the data of a lost one."""
    if not (data_dir / CATALOG).exists() and any(
        any((data_dir / place).glob("*/*")) for place in (RECORDS_PREFIX, PACKS_PREFIX)
    ):
        raise ConfigurationError(
            f"{data_dir / CATALOG} is missing, but there are backups in {data_dir}",
            hint="put the file back, or rebuild it from the data: cryo rebuild-catalog",
        )


@contextmanager
def _explained(data_dir: Path, source: KeyringSource) -> Iterator[None]:
    """Turn a missing or wrong key into an error for the operator."""
    try:
        yield
    except KeyUnavailableError as error:
        raise keyring_refused_error(str(data_dir), source.place, error) from None


def _write_credentials(data_dir: Path, database: Database, keyring: StoreKeyring, settings: Settings) -> None:
    """Write the root access key to the credentials file, unless the file exists."""
    path = data_dir / CREDENTIALS
    key = None if path.exists() else root_key(database, keyring)
    if key is not None:
        write_credentials(path, key, settings.region)
