"""Errors of the agent, apart from those of the store: damaged archives, the source, the target."""

from __future__ import annotations

import os

from cryostore.core.errors import CryostoreError
from cryostore.model.errors import DamagedDataException, ServiceInternalException


class ArchiveDamagedError(CryostoreError):
    """An archive has bytes that no agent of this version writes: it is damaged, hostile, or of a later format."""


DAMAGE = (ArchiveDamagedError, DamagedDataException, ServiceInternalException)
"""The errors that mean lost or wrong bytes; other errors may be temporary. Older servers answer with the last one."""


class SourceError(Exception):
    """An entry of the source cannot be read; the run continues without it. Never raised for the store."""

    def __init__(self, path: bytes, reason: str, errno: int | None = None) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason
        self.errno = errno

    @classmethod
    def of(cls, path: bytes, error: OSError) -> SourceError:
        """The error for an OSError at this path."""
        return cls(path, error.strerror or str(error), error.errno)


class TargetError(Exception):
    """An entry cannot be written at the target of a restore; the restore continues without it."""

    def __init__(self, path: bytes, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    @classmethod
    def of(cls, path: bytes, error: OSError) -> TargetError:
        """The error for an OSError at this path."""
        return cls(path, error.strerror or str(error))


def shown(path: bytes) -> str:
    """A path as text for people. Control characters and invalid UTF-8 are escaped."""
    text = os.fsdecode(path)
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
