"""What a data directory holds beside catalog and blobs: its lock, its keyring and its credentials file.

- The lock is shared by any number of services, or held alone by one program.
- The keyring is the file in the directory, or the one that the operator names. A wrong keyring is refused with a hint,
  and never replaced by a new one.
- The credentials file holds the root access key as an AWS shared credentials file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cryostore.catalog.database import Database
from cryostore.catalog.rows import keys
from cryostore.chunks.durable_files import staged_file, storage_errors, sync_directory
from cryostore.chunks.keyring import (
    Keyring,
    KeyringSource,
    KeyringUri,
    open_keyring,
    open_or_create_keyring,
    parse_keyring_uri,
    unwrap,
)
from cryostore.core.errors import BlobNotFoundError, ConfigurationError, StorageUnavailableError
from cryostore.core.ids import NewId
from cryostore.service.access import access_key_context

LOCK = "in-use.lock"
KEYRING = "keyring.json"
DATA_NAMES = ("catalog.sqlite", "records", "packs")
"""Names in a data directory that a keyring may protect: if one of them is there, no new keyring is made."""


class InUse:
    """The shared lock of a service, held until `close` or the end of the process.

    Raises ConfigurationError while a program holds the exclusive lock, StorageUnavailableError.
    """

    def __init__(self, data_dir: Path) -> None:
        self._descriptor = _lock(
            data_dir, fcntl.LOCK_SH, "its catalog is being rebuilt", hint="wait for `cryo rebuild-catalog` to end"
        )

    def close(self) -> None:
        """Release the lock. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextlib.contextmanager
def sole_use(data_dir: Path) -> Iterator[None]:
    """Hold the exclusive lock. Raises ConfigurationError while a service holds the shared one."""
    descriptor = _lock(
        data_dir, fcntl.LOCK_EX, "a server or another program uses it", hint="stop `cryo serve` and try again"
    )
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(data_dir: Path, how: int, reason: str, *, hint: str) -> int:
    try:
        descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageUnavailableError(f"{data_dir} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(f"{data_dir} cannot be used: {reason}", hint=hint) from None
    return descriptor


def keyring_uri_of(data_dir: Path, keyring: str | None) -> KeyringUri:
    """The location of a data directory's keyring; `keyring` is the operator's option. Raises ConfigurationError."""
    inside = data_dir / KEYRING
    if keyring is None:
        return KeyringUri("file", str(inside))
    place = parse_keyring_uri(keyring)
    if inside.exists() and not (place.path is not None and place.path.exists() and place.path.samefile(inside)):
        raise ConfigurationError(
            f"{inside} exists, and --keyring names another keyring",
            hint="leave out --keyring; or, if the other one has all of its keys (`cryo key list`), move this one away",
        )
    return place


def open_or_create_keyring_of(
    data_dir: Path, keyring: str | None, new_id: NewId, on_created: Callable[[Path], None] = lambda _: None
) -> KeyringSource:
    """Open the keyring of a data directory; create a missing keyring file if the directory holds no data yet.

    Calls `on_created` with the path of a new one. Raises ConfigurationError.
    """
    place = keyring_uri_of(data_dir, keyring)
    path = place.path
    if path is None or path.exists():
        return open_keyring(place)
    if any(_holds_something(data_dir / name) for name in DATA_NAMES):
        raise _missing(data_dir, path)
    try:
        return open_or_create_keyring(path, new_id, on_created)
    except BlobNotFoundError:
        raise ConfigurationError(
            f"keyring {path} cannot be made: there is no directory {path.parent}",
            hint=f"Run: mkdir -m 700 {path.parent}",
        ) from None


def existing_keyring(data_dir: Path, keyring: str | None = None) -> KeyringSource:
    """Open the keyring of a data directory, which must exist. Raises ConfigurationError."""
    place = keyring_uri_of(data_dir, keyring)
    if place.path is not None and not place.path.exists():
        raise _missing(data_dir, place.path)
    return open_keyring(place)


def _missing(data_dir: Path, path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"keyring {path} is missing, and without it nothing in {data_dir} can be read",
        hint="put the keyring back from your copy of it, or name the place where it is with --keyring;"
        " a new one would not open the old data",
    )


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


class RootKey(NamedTuple):
    """The root access key: the oldest key that may do everything."""

    access_key_id: str
    secret: str


def root_key(database: Database, keyring: Keyring) -> RootKey | None:
    """The root access key of a store; None if it has none. Raises KeyUnavailableError."""
    row = database.read(keys.root_access_key)
    if row is None:
        return None
    return RootKey(row.access_key_id, unwrap(keyring, row.wrapped, access_key_context(row.access_key_id)).decode())


def write_credentials(path: Path, key: RootKey, region: str) -> None:
    """Write the file atomically, mode 0600; replaces an existing one. Raises StorageUnavailableError."""
    text = (
        "# The root access key of this Cryostore: it may do everything. Keep it secret.\n"
        f"[default]\naws_access_key_id = {key.access_key_id}\naws_secret_access_key = {key.secret}\n"
        f"region = {region}\n"
    )
    with storage_errors(f"{path}"):
        descriptor, temporary = staged_file(path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
