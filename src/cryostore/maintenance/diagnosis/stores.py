"""Checks of a data directory or of a shared store, and of its keyring and the copy of it.

Of a data directory: permissions, file system, free space, keyring, commits. The file system of a path comes from the
kernel's mount table (`mount_of`). Of a shared store: keyring, catalog, blobs, and that the three belong together. The
checks of the catalog are in `catalog`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeVar

from cryostore.catalog import NoCatalogError, open_catalog
from cryostore.catalog.database import Database
from cryostore.catalog.queries import store_copy
from cryostore.chunks.blobs import BlobStore, Versioning, open_blobs
from cryostore.chunks.blobs.self_test import check_blob_store
from cryostore.chunks.disk_reserve import FILE as RESERVE_FILE
from cryostore.chunks.keyring import KeyringSource
from cryostore.chunks.keyring.master_keys import DOCUMENT_BYTES_MAX, NoDocumentError, decode_text, is_paper, read_paper
from cryostore.chunks.marker import marker_key, newest_marker
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.core.limits import MIB
from cryostore.core.quantities import size_text
from cryostore.maintenance.diagnosis import Diagnoses, Diagnosis, error, failed, ok, warning
from cryostore.maintenance.diagnosis.catalog import check_catalog, check_commits
from cryostore.service.opening.data_directory import existing_keyring
from cryostore.service.opening.open import CATALOG
from cryostore.service.opening.open_shared import explain_key_errors
from cryostore.service.opening.shared_store import INIT_HINT, SharedStoreAddress, is_url, require_identity
from cryostore.service.store_keyring import StoreKeyring

Part = TypeVar("Part")
LIFECYCLE = "no lifecycle rule of the bucket may expire objects, or move them to a class that takes hours to read"
NETWORK_FILE_SYSTEMS = {
    "9p",
    "afs",
    "ceph",
    "cifs",
    "glusterfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
    "virtiofs",
}
TEMPORARY_FILE_SYSTEMS = {"overlay", "ramfs", "rootfs", "squashfs", "tmpfs"}
FOREIGN_FILE_SYSTEMS = {"exfat", "fat", "hfs", "hfsplus", "msdos", "ntfs", "ntfs3", "vfat"}
UNSAFE_MOUNT_OPTIONS = {"nobarrier", "barrier=0"}
FREE_SHARE_MIN = 0.1
RESERVE_BYTES = 64 * MIB
MOUNT_TABLE = Path("/proc/self/mounts")


def check_directory(data_dir: Path, keyring: str | None, copy: Path | None) -> Diagnoses:
    """Check a data directory without opening its service, which would upgrade it.

    `keyring` is the option of that name; `copy` is a copy of the keyring to compare with it.
    """
    if not (data_dir / CATALOG).exists():
        yield error("data directory", f"{data_dir} holds no store", "`cryo backup --data-dir` makes one")
        return
    yield _permissions(data_dir)
    yield _file_system(mount_of(data_dir))
    yield _free_space(data_dir)
    yield from _keyring(data_dir, keyring, copy)
    yield from _commits(data_dir, keyring)


def _permissions(data_dir: Path) -> Diagnosis:
    status = data_dir.stat()
    mode = status.st_mode & 0o777
    if mode & 0o077:
        return warning("data directory", f"others may enter {data_dir} (mode {mode:04o})", f"chmod 700 {data_dir}")
    if status.st_uid != os.geteuid():
        return warning(
            "data directory",
            f"{data_dir} belongs to user {status.st_uid}, but this process runs as {os.geteuid()}",
            "run as its owner, so that all files of the store have the same owner",
        )
    return ok("data directory", f"{data_dir}, for its owner only")


def _file_system(mount: MountPoint | None) -> Diagnosis:
    about = "file system"
    if mount is None:
        return warning(
            about, "unknown: this system has no mount table", "make sure that it is a local one that obeys fsync"
        )
    kind = mount.kind
    if kind in NETWORK_FILE_SYSTEMS or kind.startswith("fuse"):
        found = f"{kind} on {mount.path}: often does not keep flushes and locks"
        return warning(about, found, "put the store on a local disk, and run `cryo serve` there")
    if kind in TEMPORARY_FILE_SYSTEMS:
        return warning(about, f"{kind} on {mount.path}: may be lost with the machine", "put the store on a disk")
    if kind in FOREIGN_FILE_SYSTEMS:
        return warning(about, f"{kind} on {mount.path}: made for other systems", "use ext4, XFS, btrfs or ZFS")
    if unsafe := UNSAFE_MOUNT_OPTIONS & mount.options:
        return warning(
            about, f"mounted with {', '.join(unsafe)}", "a power failure would lose data: remove these options"
        )
    return ok(about, f"{kind} on {mount.path}")


def _free_space(data_dir: Path) -> Diagnosis:
    status = os.statvfs(data_dir)
    free, whole = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    found = f"{size_text(free)} of {size_text(whole)} free"
    advice = "delete recovery points and run `cryo gc`, or enlarge the disk"
    if not (data_dir / RESERVE_FILE).exists() and free < 2 * RESERVE_BYTES:
        return error("room", f"{found}, and the reserve is used up: new data is refused", advice)
    if free < whole * FREE_SHARE_MIN:
        return warning("room", found, advice)
    return ok("room", found)


def _keyring(data_dir: Path, keyring: str | None, copy: Path | None) -> Diagnoses:
    try:
        source = existing_keyring(data_dir, keyring)
        yield check_keyring(source)
    except CryostoreError as problem:
        yield failed("keyring", problem, "put it back from your copy")
        return
    if copy is None:
        advice = "`cryo key export --to FILE` makes one; --keyring-copy FILE checks it"
        yield ok("copy of the keyring", "not checked: no copy is named", advice)
    else:
        yield check_keyring_copy(source, copy, data_dir)


def _commits(data_dir: Path, keyring: str | None) -> Diagnoses:
    with ExitStack() as opened:
        try:
            source = existing_keyring(data_dir, keyring)
            database = open_catalog(data_dir / CATALOG, create=False, migrate=False)
            opened.callback(database.close)
            store = open_blobs(data_dir)
            opened.callback(store.close)
        except CryostoreError:
            return  # the check of that part reports it
        yield check_commits(database, store, source)


class MountPoint(NamedTuple):
    """One line of the table."""

    path: str
    kind: str
    options: frozenset[str]


def mount_of(path: Path, table: Path = MOUNT_TABLE) -> MountPoint | None:
    """Return the file system that holds `path`; None if this system has no mount table."""
    real = os.path.realpath(path)
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    found = None
    for line in lines:
        _, place, kind, options, *_ = line.split(" ")
        place = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), place)
        inside = real == place or real.startswith(place.rstrip("/") + "/")
        if inside and (found is None or len(place) >= len(found.path)):  # a later line lies above an earlier one
            found = MountPoint(place, kind, frozenset(options.split(",")))
    return found


def check_shared(place: SharedStoreAddress, *, now_ms: int, trial_name: str | None) -> Diagnoses:
    """Check a shared store without opening its service, which would upgrade it.

    With a `trial_name`, which must be unused, a few bytes are put into the blob store and deleted again.
    """
    with ExitStack() as opened:
        source, database, store = _try(place.open_keyring), _try(lambda: _catalog(place)), _try(lambda: _blobs(place))
        for part in (database, store):
            if not isinstance(part, CryostoreError):
                opened.callback(part.close)
        if _is_unprepared(database, store):
            yield from _unprepared(place, source)
            return
        if isinstance(source, CryostoreError):
            yield failed("keyring", source, "put the store's keyring there, or name its place with --keyring")
        else:
            yield check_keyring(source)
        if isinstance(database, CryostoreError):
            yield failed("catalog", database, "is the server running, and is this its address?")
        else:
            on_server = is_url(place.catalog)
            yield from check_catalog(database, place.shown_catalog, on_server=on_server, now_ms=now_ms)
        if isinstance(store, CryostoreError):
            yield failed("blobs", store, "check --blobs")
        else:
            yield from check_blobs(store, place.shown_blobs, trial_name=trial_name)
        if (
            not isinstance(source, CryostoreError)
            and not isinstance(database, CryostoreError)
            and not isinstance(store, CryostoreError)
        ):
            yield _together(place, source, database, store)
            yield check_commits(database, store, source)


def _try(open_part: Callable[[], Part]) -> Part | CryostoreError:
    """Open a part, or return the error."""
    try:
        return open_part()
    except CryostoreError as problem:
        return problem


def _catalog(place: SharedStoreAddress) -> Database:
    return place.open_catalog(create=False, migrate=False)


def _blobs(place: SharedStoreAddress) -> BlobStore:
    if not is_url(place.blobs) and not Path(place.blobs).is_dir():
        raise NoDirectoryError(
            f"there is no directory {place.blobs}", hint="give --blobs the path that `cryo init` was given"
        )
    return place.open_blobs()


class NoDirectoryError(ConfigurationError):
    """The directory of the blobs does not exist."""


def _is_unprepared(database: Database | CryostoreError, store: BlobStore | CryostoreError) -> bool:
    """Whether neither the catalog nor the blobs hold a store: no fault, only `cryo init` was not run."""
    try:
        if isinstance(database, CryostoreError):
            is_empty = isinstance(database, NoCatalogError)
        else:
            is_empty = database.read(store_copy.schema_version) > 0 and database.read(store_copy.is_empty)
        if isinstance(store, CryostoreError):
            return is_empty and isinstance(store, NoDirectoryError)
        return is_empty and newest_marker(store) is None
    except CryostoreError:
        return False  # the check of the part that cannot be read reports it


def _unprepared(place: SharedStoreAddress, source: KeyringSource | CryostoreError) -> Diagnoses:
    if isinstance(source, CryostoreError):
        yield ok("keyring", f"{place.keyring} does not exist yet", "`cryo init` makes it; then keep a copy elsewhere")
    else:
        yield check_keyring(source)
    found = f"not prepared yet: {place.shown_catalog} and {place.shown_blobs} hold nothing"
    yield error("store", found, INIT_HINT)


def _together(place: SharedStoreAddress, source: KeyringSource, database: Database, store: BlobStore) -> Diagnosis:
    try:
        with explain_key_errors(place, source):
            identity = require_identity(database, StoreKeyring(database, source), store, place.shown_blobs)
    except CryostoreError as problem:
        return failed("store", problem, "name a catalog, blobs and a keyring of the same store")
    return ok("store", f"{identity.store_id}: catalog, blobs and keyring belong together")


def check_blobs(store: BlobStore, shown: str, *, trial_name: str | None) -> Diagnoses:
    """Check the blob store that people know as `shown`.

    With a `trial_name`, which must be unused, a few bytes are put there and deleted again.
    """
    try:
        marker = newest_marker(store)
    except CryostoreError as problem:
        yield failed("blobs", problem, "check the endpoint, the bucket, its region and the access key")
        return
    if marker is None:
        yield warning("blobs", f"{shown} answers, but holds no store", "give --blobs as `cryo init` was given it")
    else:
        yield ok("blobs", f"{shown} answers, and holds store {marker.store_id}")
    if trial_name is not None:
        yield _try_blob_store(store, trial_name)
    if isinstance(store, Versioning):
        yield _bucket(store, marker.number if marker else None)


def _try_blob_store(store: BlobStore, name: str) -> Diagnosis:
    about = "blob service"
    try:
        check_blob_store(store, name)
    except CryostoreError as problem:
        return failed(about, problem, "allow this access key to get, put, list and delete objects under the prefix")
    return ok(about, "conditional put, list and delete work")


def _bucket(store: BlobStore, number: int | None) -> Diagnosis:
    about = "bucket"
    try:
        versions = number is not None and isinstance(store, Versioning) and store.has_versions(marker_key(number))
    except CryostoreError as problem:
        return failed(about, problem, "allow this access key to read objects")
    if versions:
        advice = f"add a lifecycle rule that removes old versions after some days; but {LIFECYCLE}"
        return warning(about, "keeps old versions, so that deleted data still costs", advice)
    return ok(about, "its lifecycle rules are not visible from here", LIFECYCLE)


def check_keyring(source: KeyringSource) -> Diagnosis:
    """Check an open keyring. Raises CryostoreError if it cannot be read, or if other users may read its file."""
    number = len(source.document().keys)
    return ok("keyring", f"{source.place}, {number} {'key' if number == 1 else 'keys'}")


def check_keyring_copy(source: KeyringSource, copy: Path, data_dir: Path) -> Diagnosis:
    """Check that a copy has every key of the keyring, and is not on the disk of the data."""
    about, advice = "copy of the keyring", "make a new one: `cryo key export --to FILE`"
    try:
        with copy.open("rb") as file:
            data = file.read(DOCUMENT_BYTES_MAX + 1)
        copied = read_paper(data) if is_paper(data) else decode_text(data)
    except OSError as problem:
        return error(about, f"{copy} cannot be read: {problem.strerror}", advice)
    except (NoDocumentError, CryostoreError):
        return error(about, f"{copy} holds no keyring", advice)
    keys = source.document().keys
    wrong = [name for name, key in keys.items() if name not in copied.keys or not key.is_same(copied.keys[name])]
    if wrong:
        return error(about, f"{copy} lacks {len(wrong)} of {len(keys)} keys", advice)
    if copy.stat().st_dev == data_dir.stat().st_dev:
        return warning(about, f"{copy} has all keys, but is on the disk of the data", "keep it elsewhere")
    return ok(about, f"{copy} has all {len(keys)} keys")
