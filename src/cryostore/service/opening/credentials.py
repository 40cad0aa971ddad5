"""The credentials file: the root access key as an AWS shared credentials file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from cryostore.catalog.database import Database
from cryostore.catalog.rows import keys
from cryostore.chunks.durable_files import staged_file, storage_errors, sync_directory
from cryostore.chunks.keyring import Keyring, unwrap
from cryostore.service.access import access_key_context


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
