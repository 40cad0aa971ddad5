"""Master keys: they wrap the vaults' data keys, and live outside the data they protect.

Lives here: the Keyring seam, the wrapped form (docs/formats.md, "Wrapped key") and the keyring file. Every
implementation passes `tests/conformance/keyring.py`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
from pathlib import Path
from typing import Protocol

from cryostore.chunks.cipher import SECRET_BYTES, open_small, seal_small
from cryostore.chunks.files import create_file, storage_errors
from cryostore.core.errors import BlobExistsError, ConfigurationError, DamagedDataError, KeyUnavailableError
from cryostore.core.ids import NewId

MAGIC = b"CRYW"
VERSION = 1
KEY_ID_BYTES_MAX = 255
COMMENT = (
    "Master keys of a Cryostore. Whoever has this file and the data can read every backup; without it nobody can, "
    "and no backup can be restored. Keep a copy in a safe place away from the data."
)


class MasterKey:
    """One master key. Its secret never shows in a repr."""

    def __init__(self, key_id: str, secret: bytes) -> None:
        if not 1 <= len(key_id.encode()) <= KEY_ID_BYTES_MAX or len(secret) != SECRET_BYTES:
            raise ValueError(f"a master key is an id of 1 to {KEY_ID_BYTES_MAX} bytes and {SECRET_BYTES} secret bytes")
        self.key_id = key_id
        self._secret = secret

    def __repr__(self) -> str:
        return f"MasterKey({self.key_id!r})"

    def wrap(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt `plain`, bound to `context`: only the same context unwraps it."""
        head = _wrapped_head(self.key_id)
        return head + seal_small(self._secret, plain, head + context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """The inverse of `wrap`; KeyUnavailableError if key, bytes or context are not the ones of then."""
        head = _wrapped_head(self.key_id)
        try:
            if wrapped.startswith(head):
                return open_small(self._secret, wrapped[len(head) :], head + context)
        except DamagedDataError as error:
            raise KeyUnavailableError(f"master key {self.key_id} does not open this: {error.message}") from None
        raise KeyUnavailableError(f"master key {self.key_id} did not wrap this")


class Keyring(Protocol):
    """Where master keys come from. Safe to call from many threads."""

    def active(self) -> MasterKey:
        """The key to wrap with. Raises KeyUnavailableError."""

    def key(self, key_id: str) -> MasterKey:
        """The key of this id, active or not. Raises KeyUnavailableError."""


def wrapped_key_id(wrapped: bytes) -> str:
    """The id of the master key that wrapped these bytes. Raises KeyUnavailableError if they are not a wrapped key."""
    start = len(MAGIC) + 2
    if len(wrapped) < start or not wrapped.startswith(MAGIC + bytes([VERSION])):
        raise KeyUnavailableError("this is not a wrapped key, or one of a later format")
    end = start + wrapped[start - 1]
    try:
        return wrapped[start:end].decode()  # if cut short, a name that no key has
    except UnicodeDecodeError:
        raise KeyUnavailableError("this is not a wrapped key") from None


def unwrap(keyring: Keyring, wrapped: bytes, context: bytes) -> bytes:
    """Unwrap with whichever key of the ring wrapped it. Raises KeyUnavailableError."""
    return keyring.key(wrapped_key_id(wrapped)).unwrap(wrapped, context)


class FileKeyring:
    """The keys of a keyring file. A key it does not know is looked for in the file once more: it may be new there.

    Raises ConfigurationError if the file is missing, readable by others, or not a keyring.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._active, self._keys = _read(path)

    def active(self) -> MasterKey:
        """See Keyring."""
        return self._active

    def key(self, key_id: str) -> MasterKey:
        """See Keyring."""
        if key_id not in self._keys:
            with contextlib.suppress(ConfigurationError):
                self._active, self._keys = _read(self._path)
        try:
            return self._keys[key_id]
        except KeyError:
            raise KeyUnavailableError(
                f"the keyring has no master key {key_id}", hint=f"Put the keyring that has it at {self._path}."
            ) from None


def create_keyring(path: Path, new_id: NewId) -> FileKeyring:
    """Write a new keyring file with one new key, durably. Raises BlobExistsError and never overwrites."""
    key_id = new_id()
    keys = {key_id: base64.b64encode(os.urandom(SECRET_BYTES)).decode()}
    text = json.dumps({"comment": COMMENT, "active": key_id, "keys": keys}, indent=2) + "\n"
    with storage_errors(f"keyring {path}"):
        create_file(path, text.encode(), staging=path.parent)
    return FileKeyring(path)


def open_or_create_keyring(path: Path, new_id: NewId) -> FileKeyring:
    """The keyring at `path`, a new one if there is none. Of several processes that race here, one creates it."""
    if not path.exists():
        with contextlib.suppress(BlobExistsError):
            return create_keyring(path, new_id)
    return FileKeyring(path)


def _wrapped_head(key_id: str) -> bytes:
    name = key_id.encode()
    return MAGIC + bytes([VERSION, len(name)]) + name


def _read(path: Path) -> tuple[MasterKey, dict[str, MasterKey]]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise ConfigurationError(f"keyring {path} is open to other users", hint=f"Run: chmod 600 {path}")
            document = json.loads(file.read())
        secrets = {key_id: base64.b64decode(text, validate=True) for key_id, text in document["keys"].items()}
        keys = {key_id: MasterKey(key_id, secret) for key_id, secret in secrets.items()}
        return keys[document["active"]], keys
    except OSError as error:
        raise ConfigurationError(f"keyring {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        # without the cause: it may quote the file
        raise ConfigurationError(
            f"keyring {path} is not a keyring file", hint="Restore it from your copy; do not make a new one."
        ) from None
