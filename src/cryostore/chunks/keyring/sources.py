"""Sources of keyrings: a file, an environment variable, and the output of a command.

- A file is read again when it has changed, replaced as a whole, and durable before its keys are used.
- A variable is read once and removed from the environment, so that no child process inherits it.
- A command is a program that asks a key service, a secret store or a security module. No shell is involved. The
  program's stderr is neither shown nor logged, because it may contain secrets.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cryostore.chunks.durable_files import TEMPORARY_PREFIX, create_file, storage_errors, sync_directory, write_all
from cryostore.chunks.keyring.master_keys import (
    DOCUMENT_BYTES_MAX,
    KeyringDocument,
    MasterKey,
    NoDocumentError,
    decode,
    decode_text,
)
from cryostore.core.errors import ConfigurationError, KeyMissingError
from cryostore.core.ids import NewId

OTHERS = 0o077
COMMAND_SECONDS_MAX = 30.0
COMMAND_WAIT_SECONDS_MAX = 5.0
"""How long a request for a missing key waits for the program."""
COMMAND_PAUSE_SECONDS = 5.0
"""The shortest time between the end of one run and the next run."""
COMMAND_OUTPUT_BYTES_MAX = 2 * DOCUMENT_BYTES_MAX
COMMAND_HINT = (
    "run it by hand as the server's user: it must print the keyring document, or base64 of it, and exit with 0"
)


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
        self._seen = _read_file(path)

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
        self._seen = _read_file(self._path)
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
            self._seen = _read_file(self._path)
            self._failure = ""
        except (OSError, ConfigurationError) as error:
            reason = error.message if isinstance(error, ConfigurationError) else f"it is gone: {error.strerror}"
            self._failure = f", and {reason}"

    def _change(self, change: Callable[[KeyringDocument], KeyringDocument]) -> KeyringDocument:
        """Replace the file by a changed one. Several processes do so one after the other."""
        path = self._path.resolve()  # a symbolic link to the file stays one
        with storage_errors(f"keyring {self._path}"), _turn(path.parent):
            before = _read_file(path)
            after = change(before.document)
            if not after.is_same(before.document):
                _replace(path, after.encode())
            self._seen = _read_file(path)
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


def _read_file(path: Path) -> _Seen:
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


class EnvironmentKeyring:
    """The keys of the keyring document in the variable `name`, as JSON or base64 of it.

    Raises ConfigurationError if the variable is not set or holds no keyring document.
    """

    def __init__(self, name: str) -> None:
        self.place = f"environment variable {name}"
        data = os.environb.pop(name.encode(), None)
        if data is None:
            raise ConfigurationError(
                f"{self.place} is not set; it should hold the keyring",
                hint="set it to the keyring document (JSON, or base64 of it) for this process alone",
            )
        try:
            self._document = decode_text(data)
        except NoDocumentError:
            raise ConfigurationError(
                f"{self.place} does not hold a keyring document",
                hint="it must be the content of a keyring file, or base64 of it, whole and unchanged",
            ) from None

    def active(self) -> MasterKey:
        """See Keyring."""
        return self._document.active

    def key(self, key_id: str) -> MasterKey:
        """See Keyring."""
        try:
            return self._document.keys[key_id]
        except KeyError:
            raise KeyMissingError(
                key_id,
                hint=f"set the {self.place} to a document that has it, and restart the server",
            ) from None

    def document(self) -> KeyringDocument:
        """See KeyringSource."""
        return self._document


class CommandKeyring:
    """The keys that a program prints. It runs once, and again when a key is requested that it did not print.

    Raises ConfigurationError if the program fails, takes too long or prints no keyring document. `now` is a monotonic
    clock.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        run_seconds_max: float = COMMAND_SECONDS_MAX,
        wait_seconds_max: float = COMMAND_WAIT_SECONDS_MAX,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.place = f"command {arguments[0]}"
        self._arguments = arguments
        self._run_seconds_max = run_seconds_max
        self._wait_seconds_max = wait_seconds_max
        self._now = now
        self._document = self._ask()
        self._failure = ""
        self._lock = threading.Lock()
        self._begun = self._ended = float("-inf")  # the first key that is missing is asked for at once
        self._run: threading.Thread | None = None

    def active(self) -> MasterKey:
        """See Keyring."""
        return self._document.active

    def key(self, key_id: str) -> MasterKey:
        """See Keyring. May wait for the program, for a limited time."""
        if key_id not in self._document.keys:
            self._look_again()
        try:
            return self._document.keys[key_id]
        except KeyError:
            raise KeyMissingError(key_id, self._failure, hint=COMMAND_HINT) from None

    def document(self) -> KeyringDocument:
        """See KeyringSource. Returns the last output."""
        return self._document

    def _look_again(self) -> None:
        """Run the program, unless it has just run, and wait for its end for a limited time."""
        with self._lock:
            if self._run is None and self._now() - self._ended >= COMMAND_PAUSE_SECONDS:
                self._begun = self._now()
                self._run = threading.Thread(target=self._refresh, name="keyring", daemon=True)
                self._run.start()
            run, until = self._run, self._begun + self._wait_seconds_max
        if run is not None:
            run.join(max(0.0, until - self._now()))

    def _refresh(self) -> None:
        try:
            self._document = self._ask()
            self._failure = ""
        except ConfigurationError as error:
            self._failure = f", and {error.message}"
        finally:
            with self._lock:
                self._run, self._ended = None, self._now()

    def _ask(self) -> KeyringDocument:
        try:
            return decode_text(_output(self._arguments, self.place, self._run_seconds_max))
        except NoDocumentError:
            raise ConfigurationError(f"the {self.place} printed no keyring document", hint=COMMAND_HINT) from None


def _output(arguments: Sequence[str], place: str, seconds_max: float) -> bytes:
    """Return the output of a program that exits with 0. Raises ConfigurationError; leaves no process behind."""
    deadline = time.monotonic() + seconds_max
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own words, and no shell reads them
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its words cannot be passed on"
        raise ConfigurationError(
            f"the {place} for the keyring cannot be started: {reason}", hint=COMMAND_HINT
        ) from None
    with process:
        data, code = _read_output(process, deadline), None
        if data is not None and len(data) <= COMMAND_OUTPUT_BYTES_MAX:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(max(0.0, deadline - time.monotonic()))
        if code is None:
            os.killpg(process.pid, signal.SIGKILL)  # with its children; its number cannot be in use again yet
    if data is not None and len(data) > COMMAND_OUTPUT_BYTES_MAX:
        raise ConfigurationError(f"the {place} printed far more than a keyring document", hint=COMMAND_HINT)
    if data is None or code is None:
        raise ConfigurationError(
            f"the {place} for the keyring did not finish within {seconds_max:g} s", hint=COMMAND_HINT
        )
    if code:
        ended = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        raise ConfigurationError(f"the {place} for the keyring {ended}", hint=COMMAND_HINT)
    return bytes(data)


def _read_output(process: subprocess.Popen[bytes], deadline: float) -> bytearray | None:
    """Return the output of a process, cut off if it is too long; None if it does not end in time."""
    assert process.stdout is not None
    descriptor, data = process.stdout.fileno(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while len(data) <= COMMAND_OUTPUT_BYTES_MAX:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                return data
            data += piece
    return data
