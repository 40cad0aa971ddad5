"""Exceptions that are not errors of the API: failures of storage, keys and configuration.

The errors of the API are in `cryostore.model.errors`; they derive from `CryostoreError` too.

    CryostoreError
    +-- StorageUnavailableError   the disk is full, read-only or failing: retry later
    |   +-- StorageFullError      no space left
    +-- BlobNotFoundError         no blob has this key
    +-- BlobExistsError           a blob with this key exists already
    +-- DamagedDataError          stored bytes fail their verification: no reader gets them
    |   +-- UnknownFormatError    they have a later format: they are not damaged and must not be changed
    +-- KeyUnavailableError       a key is missing, or does not open its data
    |   +-- KeyMissingError       the keyring of this process lacks a master key that another process may have
    +-- ConfigurationError        the operator asked for something impossible or unsafe
"""

from __future__ import annotations

import errno
import os
from typing import Self

from cryostore.core.limits import MIB

NO_SPACE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The file system, or the quota of this user, has no space left."""
DISK_FULL_ERRNOS = NO_SPACE_ERRNOS | {errno.EFBIG}
"""A file of a store cannot grow. EFBIG counts too: no file of a store comes near the size limit of a file system."""


class CryostoreError(Exception):
    """Base of all errors that Cryostore raises on purpose.

    `message` says what failed and why, `hint` (may be empty) what to do next. Neither ever holds a secret.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class StorageUnavailableError(CryostoreError):
    """Bytes could not be stored or read, for a reason that may be temporary.

    `part` is the part of a shared store that failed, "catalog" or "blobs"; empty for a disk of this machine.
    """

    def __init__(self, message: str, *, hint: str = "", part: str = "") -> None:
        super().__init__(message, hint=hint)
        self.part = part


class StorageFullError(StorageUnavailableError):
    """No space is left for the bytes."""

    @classmethod
    def of_disk(cls, place: str, bytes_needed: int | None = None, *, hint: str = "") -> Self:
        """The error of a full disk: names the machine, the path, and the bytes needed if known."""
        needed = "no space left" if bytes_needed is None else f"{max(-(-bytes_needed // MIB), 1)} MiB needed"
        return cls(f"disk full on {os.uname().nodename}: {place}: {needed}", hint=hint)


class BlobNotFoundError(CryostoreError):
    """No blob has this key."""


class BlobExistsError(CryostoreError):
    """A blob with this key exists already. Blobs are written once."""


class DamagedDataError(CryostoreError):
    """Stored bytes fail their verification."""


class UnknownFormatError(DamagedDataError):
    """Stored bytes have a format that only a later version reads. They are not damaged and must not be changed."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}, unknown to this version", hint="start a newer Cryostore on this data")


class KeyUnavailableError(CryostoreError):
    """A key is missing, or does not open its data."""


class KeyMissingError(KeyUnavailableError):
    """The keyring of this process lacks a master key. Another node may have it, and the operator can add it here."""

    def __init__(self, key_id: str, reason: str = "", *, hint: str = "") -> None:
        super().__init__(f"the keyring has no master key {key_id}{reason}", hint=hint)
        self.key_id = key_id


class ConfigurationError(CryostoreError):
    """The configuration, or a command line, is impossible, contradictory or unsafe."""
