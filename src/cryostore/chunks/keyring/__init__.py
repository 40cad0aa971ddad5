"""Keyrings: sources of the master keys, which wrap the vaults' data keys and are kept outside the data they protect.

In this module: the interface, and the functions that open a keyring. The implementations are in `sources`, which only
these functions import. Each passes `tests/conformance/keyring.py`.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from cryostore.chunks.keyring.master_keys import MAGIC, KeyringDocument, MasterKey, wrapped_key_id
from cryostore.chunks.keyring.sources import CommandKeyring, EnvironmentKeyring, FileKeyring, create_keyring_file
from cryostore.core.errors import BlobExistsError, ConfigurationError
from cryostore.core.ids import NewId

__all__ = [
    "MAGIC",
    "EditableKeyring",
    "Keyring",
    "KeyringDocument",
    "KeyringSource",
    "KeyringUri",
    "MasterKey",
    "create_keyring",
    "open_keyring",
    "open_or_create_keyring",
    "parse_keyring_uri",
    "unwrap",
    "wrapped_key_id",
]

SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(.*)", re.DOTALL)
FORMS = "Give a path, file:PATH, env:NAME or command:PROGRAM ARGUMENT..."
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Keyring(Protocol):
    """A source of master keys. Safe to call from many threads."""

    def active(self) -> MasterKey:
        """Return the key to wrap with. Raises KeyUnavailableError."""

    def key(self, key_id: str) -> MasterKey:
        """Return the key with this id, active or not. Raises KeyUnavailableError."""


@runtime_checkable
class KeyringSource(Keyring, Protocol):
    """A Keyring that reads a whole keyring document."""

    @property
    def place(self) -> str:
        """Where the document comes from, for people. Contains no argument of a command."""

    def document(self) -> KeyringDocument:
        """Return all of its keys. Raises ConfigurationError if they cannot be read now."""


@runtime_checkable
class EditableKeyring(KeyringSource, Protocol):
    """A KeyringSource whose document Cryostore itself writes. Every change is complete and durable, or raises."""

    def add(self, new_id: NewId) -> MasterKey:
        """Add a new key and make it the active one. Raises ConfigurationError, StorageUnavailableError."""

    def merge(self, other: KeyringDocument) -> list[str]:
        """Add the keys of a document that are missing here; return their ids. The active key stays the same.

        Raises ConfigurationError, also if a key of both differs; StorageUnavailableError.
        """

    def remove(self, key_id: str) -> None:
        """Remove a key that is not active; absent is not an error. Raises as `add`."""

    def sync(self) -> None:
        """Make the document that was read durable. Raises StorageUnavailableError."""


class KeyringUri(NamedTuple):
    """The source of a keyring, as `--keyring` names it: a scheme (file, env or command) and the rest."""

    scheme: str
    rest: str

    @property
    def path(self) -> Path | None:
        """The path of a keyring file, None for other schemes."""
        return Path(self.rest) if self.scheme == "file" else None


def parse_keyring_uri(text: str) -> KeyringUri:
    """Parse the value of `--keyring`. Raises ConfigurationError, which never repeats a command's arguments."""
    match = SCHEME.fullmatch(text)
    scheme, rest = match.groups() if match else ("file", text)
    if scheme not in ("file", "env", "command"):
        raise ConfigurationError(
            f"--keyring: unknown scheme {scheme}:", hint=f"{FORMS}; a file of that name is file:./NAME"
        )
    if not rest.strip() or "\0" in rest:
        raise ConfigurationError("--keyring is empty", hint=FORMS)
    if scheme == "env" and not VARIABLE.fullmatch(rest):
        raise ConfigurationError("--keyring env: needs the name of an environment variable, not its content")
    if scheme == "command":
        _arguments(rest)
    return KeyringUri(scheme, rest)


def open_keyring(uri: KeyringUri) -> KeyringSource:
    """Open a keyring. Raises ConfigurationError if it cannot be read or is no keyring."""
    if uri.scheme == "env":
        return EnvironmentKeyring(uri.rest)
    if uri.scheme == "command":
        return CommandKeyring(_arguments(uri.rest))
    return FileKeyring(Path(uri.rest))


def create_keyring(path: Path, new_id: NewId, document: KeyringDocument | None = None) -> EditableKeyring:
    """Create a keyring file durably, with one new key or from a document. Raises BlobExistsError; never overwrites."""
    create_keyring_file(path, document or KeyringDocument.of_new_key(new_id()))
    return FileKeyring(path)


def open_or_create_keyring(
    path: Path, new_id: NewId, on_created: Callable[[Path], None] = lambda _: None
) -> EditableKeyring:
    """Open the keyring file at `path`, after creating it if it is absent. If several processes race, one creates it.

    That process calls `on_created` with the path.
    """
    if not path.exists():
        with contextlib.suppress(BlobExistsError):
            keyring = create_keyring(path, new_id)
            on_created(path)
            return keyring
    return FileKeyring(path)


def unwrap(keyring: Keyring, wrapped: bytes, context: bytes) -> bytes:
    """Unwrap with the key that wrapped. Raises KeyUnavailableError."""
    return keyring.key(wrapped_key_id(wrapped)).unwrap(wrapped, context)


def _arguments(text: str) -> list[str]:
    try:
        arguments = shlex.split(text)
    except ValueError:
        raise ConfigurationError("--keyring command: has an unclosed quotation mark") from None
    if not arguments or not arguments[0]:
        raise ConfigurationError("--keyring command: names no program", hint=FORMS)
    return arguments
