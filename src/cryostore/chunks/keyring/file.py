"""Keyring from a file: read again when it has changed, replaced as a whole, and durable before it is used."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cryostore.chunks.durable_files import TEMPORARY_PREFIX, create_file, storage_errors, sync_directory, write_all
from cryostore.chunks.keyring.document import DOCUMENT_BYTES_MAX, KeyringDocument, NoDocumentError, decode
from cryostore.chunks.keyring.master_key import MasterKey
from cryostore.core.errors import ConfigurationError, KeyMissingError
from cryostore.core.ids import NewId

OTHERS = 0o077


class _Seen(NamedTuple):
    """The file as it was read. `version` changes when a process writes to the file or replaces it."""

    document: KeyringDocument
    version: tuple[int, ...]


class FileKeyring:
    """The keys of a keyring file, read again when it has changed. If that fails, the last content stays valid.

    Raises ConfigurationError if the file is missing, readable by other users, or no keyring.
    """

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        self._path = path
        self._failure = ""
        self._seen = _read(path)

    def active(self) -> MasterKey:
        """See Keyring."""
        self._look_again()
        return self._seen.document.active

    def key(self, key_id: str) -> MasterKey:
        """See Keyring."""
        self._look_again()
        try:
            return self._seen.document.keys[key_id]
        except KeyError:
            hint = f"put the keyring that has it at {self._path}"
            raise KeyMissingError(key_id, self._failure, hint=hint) from None

    def document(self) -> KeyringDocument:
        """See KeyringSource."""
        self._seen = _read(self._path)
        return self._seen.document

    def add(self, new_id: NewId) -> MasterKey:
        """See EditableKeyring."""
        return self._change(lambda document: document.with_new_key(new_id())).active

    def merge(self, other: KeyringDocument) -> list[str]:
        """See EditableKeyring."""
        added: list[str] = []

        def change(document: KeyringDocument) -> KeyringDocument:
            added[:] = [name for name in other.keys if name not in document.keys]
            for name in document.keys.keys() & other.keys.keys():
                if not document.keys[name].is_same(other.keys[name]):
                    raise ConfigurationError(
                        f"master key {name} of keyring {self._path} differs from the given key with the same id",
                        hint="one of the two is damaged or belongs to another store; nothing was changed",
                    )
            return KeyringDocument(document.active, {**other.keys, **document.keys})

        self._change(change)
        return added

    def remove(self, key_id: str) -> None:
        """See EditableKeyring."""
        self._change(lambda document: document.without(key_id))

    def sync(self) -> None:
        """See EditableKeyring. The process that wrote the file may have died, or failed, before the flush."""
        with storage_errors(f"keyring {self._path}"):
            path = self._path.resolve()
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_directory(path.parent)

    def _look_again(self) -> None:
        try:
            if _version(self._path.stat()) == self._seen.version:
                return
            self._seen = _read(self._path)
            self._failure = ""
        except (OSError, ConfigurationError) as error:
            reason = error.message if isinstance(error, ConfigurationError) else f"it is gone: {error.strerror}"
            self._failure = f", and {reason}"

    def _change(self, change: Callable[[KeyringDocument], KeyringDocument]) -> KeyringDocument:
        """Replace the file by a changed one. Several processes do so one after the other."""
        path = self._path.resolve()  # a symbolic link to the file stays one
        with storage_errors(f"keyring {self._path}"), _turn(path.parent):
            before = _read(path)
            after = change(before.document)
            if not after.is_same(before.document):
                _replace(path, after.encode())
            self._seen = _read(path)
        return after


def create_keyring_file(path: Path, document: KeyringDocument) -> None:
    """Create a keyring file durably, with mode 0600. Raises BlobExistsError, StorageUnavailableError."""
    with storage_errors(f"keyring {path}"):
        create_file(path, document.encode(), staging=path.parent)


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Let one process at a time change keyrings in a directory. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    """Replace the file at `path` by one with the same owner and mode.

    At any time either the old or the new one is there. Raises OSError; then either may be there, perhaps not durably.
    """
    staged = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    with contextlib.suppress(FileNotFoundError):
        staged.unlink()  # left by a process that died, since it is our turn
    try:
        _write_staged(staged, data, path.stat())
        os.replace(staged, path)  # noqa: PTH105 - one call, like those around it
        sync_directory(path.parent)
    finally:
        with contextlib.suppress(OSError):
            staged.unlink()


def _write_staged(staged: Path, data: bytes, like: os.stat_result) -> None:
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, like.st_uid, like.st_gid)  # a server must still be able to read what root has changed
        os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        write_all(descriptor, [data], 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> _Seen:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & OTHERS:
                raise ConfigurationError(f"keyring {path} is open to other users", hint=f"Run: chmod 600 {path}")
            return _Seen(decode(file.read(DOCUMENT_BYTES_MAX + 1)), _version(status))
    except OSError as error:
        raise ConfigurationError(
            f"keyring {path} cannot be read: {error.strerror}", hint="It must be a file that this user can read."
        ) from error
    except NoDocumentError:
        raise ConfigurationError(
            f"keyring {path} is not a keyring file", hint="Restore it from your copy; do not make a new one."
        ) from None


def _version(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)
