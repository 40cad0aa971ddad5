"""How a store in a directory is opened, and made if it is not there (`cryo serve`).

The directory: `keyring.json` (master keys), `catalog.sqlite`, `packs/`, `credentials` (the root access key, in the form
of an AWS shared credentials file). All of it is readable by its owner only.
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
from cryostore.service.opening.credentials import root_key, write_credentials
from cryostore.service.opening.in_use import InUse
from cryostore.service.opening.keyring import KEYRING, open_or_create_keyring_of
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
    """Open the store in `data_dir`; make it, with vault `Default` and a root access key, if there is none.

    `keyring` says where the master keys are, if not in the directory; `on_keyring_created` is called with the path of a
    keyring that was made. Several processes may do this at once and share the store. Raises ConfigurationError if the
    directory is not a store this program can open, StorageUnavailableError if it cannot be read or written.
    """
    settings = settings or Settings()
    reserve = DiskReserve(data_dir, settings.reserve_bytes)
    # Opening a store may use the reserve: on a full disk it must be possible to read and to delete.
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
    """Make the directory, mode 0700, so that a power cut right after the first 200 leaves its name behind too.

    Of one that is there the blobs see to that.
    """
    if data_dir.is_dir():
        return
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
        raise keyring_refused_error(str(data_dir), source.place, error) from None


def _write_credentials(data_dir: Path, database: Database, keyring: StoreKeyring, settings: Settings) -> None:
    """Write the root access key where AWS clients find it, unless the file is there."""
    path = data_dir / CREDENTIALS
    key = None if path.exists() else root_key(database, keyring)
    if key is not None:
        write_credentials(path, key, settings.region)
