"""`cryo init`: preparing a shared store once, and finishing what was begun.

Every step finds out whether it was done before, so the whole may be repeated, and broken off anywhere:

1. The keyring: made only if neither catalog nor blobs hold anything that another one could open.
2. The first rows, in one transaction: secrets, root access key, vault, and the row that says which store this is.
3. The marker beside the blobs, then the row is bound to it (`identity`).
4. The first records, so that the catalog can be rebuilt from the blobs from now on.
5. The credentials file.

Nothing is ever replaced: neither a keyring nor a catalog, blobs or file of somebody else.
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
from cryostore.service.opening.address import SharedStoreAddress, is_url
from cryostore.service.opening.assembly import fill_new_store
from cryostore.service.opening.credentials import RootKey, root_key, write_credentials
from cryostore.service.opening.identity import (
    Identity,
    Kept,
    find_identity,
    insert_identity,
    replace_identity,
    require_marker,
    wrapped_identity,
)
from cryostore.service.opening.open_shared import clock_of, explain_key_errors, open_shared_service
from cryostore.service.records.recording import write_due_records
from cryostore.service.settings import Settings
from cryostore.service.store_keyring import TOKEN_SECRET, StoreKeyring
from cryostore.service.vault_keys import VaultKeys

FIRST = 1
"""The number of a store's first marker."""
REGION = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?", re.ASCII)
ACCOUNT_ID = re.compile(r"[0-9]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Initialised:
    """What is there now; and of it, what was made by this run."""

    store_id: str
    region: str
    account_id: str
    access_key_id: str
    keyring: str
    made_store: bool
    made_keyring: bool
    made_credentials: bool


def init(
    place: SharedStoreAddress,
    credentials: Path | None,
    *,
    region: str | None = None,
    account_id: str | None = None,
    upgrade: bool = False,
    clock: Clock | None = None,
    new_id: NewId = random_id,
    on_keyring_created: Callable[[Path], None] = lambda _: None,
) -> Initialised:
    """Prepare the shared store at `place`, or finish doing so, and bring its schema up to date.

    `region` and `account_id` are those of its ARNs; left out, they are as they were, at first those of `Settings`.
    `credentials` is where the root access key is written, unless it stands there already. With `upgrade` the store must
    be there.

    Raises ConfigurationError, and then nothing of anybody else was changed; StorageUnavailableError.
    """
    _check_names(region, account_id)
    if credentials is not None and not credentials.parent.is_dir():
        raise ConfigurationError(f"{credentials} cannot be made: there is no directory {credentials.parent}")
    with ExitStack() as opened:
        blobs = place.open_blobs()
        opened.callback(blobs.close)
        marker = newest_marker(blobs)
        _require_no_foreign_data(place, blobs, marker)
        if upgrade and (marker is None or not (is_url(place.catalog) or Path(place.catalog).exists())):
            raise ConfigurationError("there is no store to upgrade", hint="leave out --upgrade to prepare a new one")
        database = place.open_catalog()
        opened.callback(database.close)
        is_new = _is_new(place, database)
        if is_new and marker is not None:
            raise ConfigurationError(
                f"{place.shown_blobs} holds the data of a store whose catalog is elsewhere",
                hint="name that catalog, or other blobs; if the catalog is lost: cryo rebuild-catalog",
            )
        if is_new and credentials is not None and credentials.exists():
            raise _taken(credentials)
        source, made_keyring = _keyring(place, new_id, on_keyring_created, may_create=is_new)
        opened.enter_context(explain_key_errors(place, source))
        ring = StoreKeyring(database, source)
        if is_new:
            first = _first(place, region, account_id, new_id)
            fill_new_store(
                database,
                VaultKeys(database, ring),
                clock or clock_of(database),
                new_id,
                lambda transaction: insert_identity(transaction, ring, first),
            )
        identity, was_bound = _bound(place, database, ring, blobs, new_id)
        _require_same(identity, region, account_id)
        _write_records(place, clock)
        key = root_key(database, ring)
    return Initialised(
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
    """Refuse what would make ARNs that no client takes."""
    if region is not None and not REGION.fullmatch(region):
        raise ConfigurationError(f"--region is {region!r}: it must be letters, digits and dashes", hint="eu-central-1")
    if account_id is not None and not ACCOUNT_ID.fullmatch(account_id):
        raise ConfigurationError(f"--account-id is {account_id!r}: it must be 12 digits", hint="000000000000")


def _require_no_foreign_data(place: SharedStoreAddress, blobs: BlobStore, marker: Marker | None) -> None:
    """Refuse blobs that were there before any store was prepared for them."""
    if marker is not None:
        return
    for prefix in (PACKS_PREFIX, RECORDS_PREFIX):
        if next(iter(blobs.list(prefix)), None) is not None:
            raise ConfigurationError(
                f"{place.shown_blobs} holds the data of another store",
                hint="name an empty place; `cryo migrate` moves a data directory to a shared store",
            )


def _is_new(place: SharedStoreAddress, database: Database) -> bool:
    """Whether nothing is in the catalog yet. Raises ConfigurationError if it is not that of a shared store."""
    if database.read(wrapped_identity) is not None:
        return False
    if database.read(lambda transaction: keys.secret(transaction, TOKEN_SECRET)) is None:
        return True
    raise ConfigurationError(
        f"the catalog {place.shown_catalog} is that of a data directory, or of a rebuilding that was broken off",
        hint="name an empty one; `cryo migrate` moves a data directory, `cryo rebuild-catalog` finishes a rebuilding",
    )


def _keyring(
    place: SharedStoreAddress, new_id: NewId, on_created: Callable[[Path], None], *, may_create: bool
) -> tuple[KeyringSource, bool]:
    """The keyring, and whether it was made now."""
    path = parse_keyring_uri(place.keyring).path
    if path is None or path.exists() or not may_create:
        return place.open_keyring(), False
    made: list[Path] = []
    with suppress(BlobNotFoundError):
        source = open_or_create_keyring(path, new_id, made.append)
        if made:
            on_created(path)
        return source, bool(made)
    raise ConfigurationError(
        f"keyring {path} cannot be made: there is no directory {path.parent}", hint=f"Run: mkdir -m 700 {path.parent}"
    )


def _first(place: SharedStoreAddress, region: str | None, account_id: str | None, new_id: NewId) -> Identity:
    """What a new store is to be."""
    unsaid = Settings()
    return Identity(
        store_id=new_id(),
        number=FIRST,
        token=new_id(),
        region=region or unsaid.region,
        account_id=account_id or unsaid.account_id,
        blobs=place.shown_blobs,
    )


def _bound(
    place: SharedStoreAddress, database: Database, ring: StoreKeyring, blobs: BlobStore, new_id: NewId
) -> tuple[Identity, bool]:
    """Bring catalog and blobs together; answers which store it is, and whether they had been together before."""
    kept = find_identity(database, ring)
    assert kept is not None, "the catalog was filled"
    marker = newest_marker(blobs)
    if kept.identity.bound:
        require_marker(kept.identity, marker, place.shown_blobs)
        return kept.identity, True
    check_blob_store(blobs, new_id())  # a marker is worth nothing where it can be replaced
    if marker is None and kept.identity.blobs != place.shown_blobs:
        kept = _made_anew(place, database, ring, kept, new_id)
    if marker is not None or not put_marker(blobs, kept.identity.marker):
        require_marker(kept.identity, newest_marker(blobs), place.shown_blobs)
    identity = _with(kept.identity, bound=True, blobs=place.shown_blobs)
    if not replace_identity(database, ring, kept, identity):
        now = find_identity(database, ring)
        if now is None or not now.identity.bound or now.identity.marker != identity.marker:
            raise _raced()
    return identity, False


def _made_anew(place: SharedStoreAddress, database: Database, ring: StoreKeyring, kept: Kept, new_id: NewId) -> Kept:
    """Another identity for a store that was to have its blobs elsewhere, where a marker may lie by now."""
    identity = _with(kept.identity, store_id=new_id(), token=new_id(), blobs=place.shown_blobs)
    if not replace_identity(database, ring, kept, identity):
        raise _raced()
    found = find_identity(database, ring)
    assert found is not None, "it was there a moment ago"
    return found


def _with(identity: Identity, **values: object) -> Identity:
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


def _write_records(place: SharedStoreAddress, clock: Clock | None) -> None:
    """Open the store as a node does, and write what a rebuilding of the catalog would need."""
    service = open_shared_service(place, clock=clock)
    try:
        while not write_due_records(service.context):
            pass
    finally:
        service.close()


def _write_credentials(path: Path, key: RootKey, region: str) -> bool:
    """Write the file unless it holds the key already; answers whether it did."""
    if not path.exists():
        write_credentials(path, key, region)
        return True
    if key.access_key_id not in path.read_text(errors="replace"):
        raise _taken(path)
    return False


def _taken(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is there, and does not hold the root access key of this store",
        hint="name a file that is not there: no file is ever replaced",
    )


def _raced() -> ConfigurationError:
    return ConfigurationError("another `cryo init` is under way on this catalog", hint="wait for it, and try again")
