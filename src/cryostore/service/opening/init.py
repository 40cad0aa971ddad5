"""`cryo init`: prepares a shared store once, and resumes an interrupted preparation.

Each step checks whether it was done before, so the whole may be interrupted anywhere and repeated:

1. The keyring. It is made only if neither catalog nor blobs hold anything that an existing keyring protects.
2. The first rows, in one transaction: secrets, root access key, vault, and the identity of the store.
3. The marker beside the blobs; then the identity is bound to it (`shared_store`).
4. The first records, so that the catalog can be rebuilt from the blobs from now on.
5. The credentials file.

No step replaces an existing keyring, catalog, blob or file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from cryostore.catalog.database import Database
from cryostore.catalog.rows import keys
from cryostore.chunks.blobs import BlobStore
from cryostore.chunks.blobs.self_test import check_blob_store
from cryostore.chunks.keyring import KeyringSource, open_or_create_keyring, parse_keyring_uri
from cryostore.chunks.marker import Marker, newest_marker, put_marker
from cryostore.chunks.packs.format import PREFIX as PACKS_PREFIX
from cryostore.chunks.records import PREFIX as RECORDS_PREFIX
from cryostore.core.errors import BlobNotFoundError, ConfigurationError
from cryostore.core.ids import NewId, random_id
from cryostore.core.time import Clock
from cryostore.service.opening.assembly import fill_new_store
from cryostore.service.opening.data_directory import RootKey, root_key, write_credentials
from cryostore.service.opening.open_shared import clock_of, explain_key_errors, open_shared_service
from cryostore.service.opening.shared_store import (
    Identity,
    SharedStoreAddress,
    StoredIdentity,
    find_identity,
    insert_identity,
    is_url,
    replace_identity,
    require_marker,
    wrapped_identity,
)
from cryostore.service.recording import write_due_records
from cryostore.service.settings import Settings
from cryostore.service.store_keyring import TOKEN_SECRET, StoreKeyring
from cryostore.service.vault_keys import VaultKeys

FIRST_MARKER = 1
"""The number of a store's first marker."""
REGION = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?", re.ASCII)
ACCOUNT_ID = re.compile(r"[0-9]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class InitResult:
    """Result of `cryo init`: the store as it is now, and which parts this run made."""

    store_id: str
    region: str
    account_id: str
    access_key_id: str
    keyring: str
    made_store: bool
    made_keyring: bool
    made_credentials: bool


def init(
    address: SharedStoreAddress,
    credentials: Path | None,
    *,
    region: str | None = None,
    account_id: str | None = None,
    upgrade: bool = False,
    clock: Clock | None = None,
    new_id: NewId = random_id,
    on_keyring_created: Callable[[Path], None] = lambda _: None,
) -> InitResult:
    """Prepare the shared store at `address`, or resume its preparation, and bring its schema up to date.

    `region` and `account_id` go into its ARNs; if left out, they stay as they are, or come from `Settings` for a new
    store. The root access key is written to `credentials` unless the file holds it already. With `upgrade` the store
    must exist.

    Raises ConfigurationError, and then no other data was changed; StorageUnavailableError.
    """
    _check_names(region, account_id)
    if credentials is not None and not credentials.parent.is_dir():
        raise ConfigurationError(f"{credentials} cannot be made: there is no directory {credentials.parent}")
    with ExitStack() as opened:
        blobs = address.open_blobs()
        opened.callback(blobs.close)
        marker = newest_marker(blobs)
        _require_no_foreign_data(address, blobs, marker)
        if upgrade and (marker is None or not (is_url(address.catalog) or Path(address.catalog).exists())):
            raise ConfigurationError("there is no store to upgrade", hint="leave out --upgrade to prepare a new one")
        database = address.open_catalog()
        opened.callback(database.close)
        is_new = _is_empty(address, database)
        if is_new and marker is not None:
            raise ConfigurationError(
                f"{address.shown_blobs} holds the data of a store whose catalog is elsewhere",
                hint="name that catalog, or other blobs; if the catalog is lost: cryo rebuild-catalog",
            )
        if is_new and credentials is not None and credentials.exists():
            raise _file_exists_error(credentials)
        source, made_keyring = _keyring(address, new_id, on_keyring_created, may_create=is_new)
        opened.enter_context(explain_key_errors(address, source))
        ring = StoreKeyring(database, source)
        if is_new:
            first = _new_identity(address, region, account_id, new_id)
            fill_new_store(
                database,
                VaultKeys(database, ring),
                clock or clock_of(database),
                new_id,
                lambda transaction: insert_identity(transaction, ring, first),
            )
        identity, was_bound = _bind_to_blobs(address, database, ring, blobs, new_id)
        _require_same(identity, region, account_id)
        _write_records(address, clock)
        key = root_key(database, ring)
    return InitResult(
        store_id=identity.store_id,
        region=identity.region,
        account_id=identity.account_id,
        access_key_id=key.access_key_id if key else "",
        keyring=source.place,
        made_store=not was_bound,
        made_keyring=made_keyring,
        made_credentials=bool(credentials and key and _write_credentials(credentials, key, identity.region)),
    )


def _check_names(region: str | None, account_id: str | None) -> None:
    """Raise ConfigurationError for a region or account id that makes ARNs which clients reject."""
    if region is not None and not REGION.fullmatch(region):
        raise ConfigurationError(f"--region is {region!r}: it must be letters, digits and dashes", hint="eu-central-1")
    if account_id is not None and not ACCOUNT_ID.fullmatch(account_id):
        raise ConfigurationError(f"--account-id is {account_id!r}: it must be 12 digits", hint="000000000000")


def _require_no_foreign_data(address: SharedStoreAddress, blobs: BlobStore, marker: Marker | None) -> None:
    """Raise ConfigurationError for blobs of a store that was not prepared here."""
    if marker is not None:
        return
    for prefix in (PACKS_PREFIX, RECORDS_PREFIX):
        if next(iter(blobs.list(prefix)), None) is not None:
            raise ConfigurationError(
                f"{address.shown_blobs} holds the data of another store",
                hint="name an empty place; `cryo migrate` moves a data directory to a shared store",
            )


def _is_empty(address: SharedStoreAddress, database: Database) -> bool:
    """Whether the catalog is empty. Raises ConfigurationError for the catalog of anything but a shared store."""
    if database.read(wrapped_identity) is not None:
        return False
    if database.read(lambda transaction: keys.secret(transaction, TOKEN_SECRET)) is None:
        return True
    raise ConfigurationError(
        f"the catalog {address.shown_catalog} belongs to a data directory or to an interrupted rebuild",
        hint="name an empty database; `cryo migrate` moves a data directory, `cryo rebuild-catalog` finishes a rebuild",
    )


def _keyring(
    address: SharedStoreAddress, new_id: NewId, on_created: Callable[[Path], None], *, may_create: bool
) -> tuple[KeyringSource, bool]:
    """The keyring, and whether this run made it."""
    path = parse_keyring_uri(address.keyring).path
    if path is None or path.exists() or not may_create:
        return address.open_keyring(), False
    made: list[Path] = []
    with suppress(BlobNotFoundError):
        source = open_or_create_keyring(path, new_id, made.append)
        if made:
            on_created(path)
        return source, bool(made)
    raise ConfigurationError(
        f"keyring {path} cannot be made: there is no directory {path.parent}", hint=f"Run: mkdir -m 700 {path.parent}"
    )


def _new_identity(address: SharedStoreAddress, region: str | None, account_id: str | None, new_id: NewId) -> Identity:
    """The identity of a new store."""
    unsaid = Settings()
    return Identity(
        store_id=new_id(),
        number=FIRST_MARKER,
        token=new_id(),
        region=region or unsaid.region,
        account_id=account_id or unsaid.account_id,
        blobs=address.shown_blobs,
    )


def _bind_to_blobs(
    address: SharedStoreAddress, database: Database, ring: StoreKeyring, blobs: BlobStore, new_id: NewId
) -> tuple[Identity, bool]:
    """Bind the catalog to the blobs. Returns the identity, and whether they had been bound before."""
    stored = find_identity(database, ring)
    assert stored is not None, "the catalog was filled"
    marker = newest_marker(blobs)
    if stored.identity.bound:
        require_marker(stored.identity, marker, address.shown_blobs)
        return stored.identity, True
    check_blob_store(blobs, new_id())  # a marker protects nothing if it can be overwritten
    if marker is None and stored.identity.blobs != address.shown_blobs:
        stored = _give_new_identity(address, database, ring, stored, new_id)
    if marker is not None or not put_marker(blobs, stored.identity.marker):
        require_marker(stored.identity, newest_marker(blobs), address.shown_blobs)
    identity = _identity_with(stored.identity, bound=True, blobs=address.shown_blobs)
    if not replace_identity(database, ring, stored, identity):
        now = find_identity(database, ring)
        if now is None or not now.identity.bound or now.identity.marker != identity.marker:
            raise _other_init_error()
    return identity, False


def _give_new_identity(
    address: SharedStoreAddress, database: Database, ring: StoreKeyring, stored: StoredIdentity, new_id: NewId
) -> StoredIdentity:
    """Give an unbound store a new identity, since its blobs were to be elsewhere, and a marker may be there by now."""
    identity = _identity_with(stored.identity, store_id=new_id(), token=new_id(), blobs=address.shown_blobs)
    if not replace_identity(database, ring, stored, identity):
        raise _other_init_error()
    found = find_identity(database, ring)
    assert found is not None, "it was there a moment ago"
    return found


def _identity_with(identity: Identity, **values: object) -> Identity:
    return Identity(**({name: getattr(identity, name) for name in Identity.__struct_fields__} | values))


def _require_same(identity: Identity, region: str | None, account_id: str | None) -> None:
    for name, wanted, found in (
        ("--region", region, identity.region),
        ("--account-id", account_id, identity.account_id),
    ):
        if wanted is not None and wanted != found:
            raise ConfigurationError(
                f"{name} is {wanted}, and the store was made with {found}", hint="it cannot be changed; leave it out"
            )


def _write_records(address: SharedStoreAddress, clock: Clock | None) -> None:
    """Open the store as a node does, and write the records that a rebuild of the catalog needs."""
    service = open_shared_service(address, clock=clock)
    try:
        while not write_due_records(service.context):
            pass
    finally:
        service.close()


def _write_credentials(path: Path, key: RootKey, region: str) -> bool:
    """Write the file unless it holds the key already. Returns whether it was written."""
    if not path.exists():
        write_credentials(path, key, region)
        return True
    if key.access_key_id not in path.read_text(errors="replace"):
        raise _file_exists_error(path)
    return False


def _file_exists_error(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} exists and does not hold the root access key of this store",
        hint="name a new file: existing files are never replaced",
    )


def _other_init_error() -> ConfigurationError:
    return ConfigurationError("another `cryo init` is running on this catalog", hint="wait for it, and try again")
