"""What can go wrong in the agent beside the store's own errors, told apart by whose fault it is."""

from __future__ import annotations

import os

from cryostore.core.errors import CryostoreError
from cryostore.model.errors import DamagedDataException, ServiceInternalException


class ArchiveDamagedError(CryostoreError):
    """An archive is not what an agent writes: damaged, hostile, or of a later format."""


DAMAGE = (ArchiveDamagedError, DamagedDataException, ServiceInternalException)
"""Bytes of an archive are lost or wrong. Anything else may pass. Older servers answer the last."""


class SourceError(Exception):
    """Something of the source cannot be read. Never raised for the store; the run goes on without it."""

    def __init__(self, path: bytes, reason: str, errno: int | None = None) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason
        self.errno = errno

    @classmethod
    def of(cls, path: bytes, error: OSError) -> SourceError:
        """The words for an operating system's error."""
        return cls(path, error.strerror or str(error), error.errno)


class TargetError(Exception):
    """Something cannot be written at the target of a restore. The restore goes on without it."""

    def __init__(self, path: bytes, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    @classmethod
    def of(cls, path: bytes, error: OSError) -> TargetError:
        """The words for an operating system's error."""
        return cls(path, error.strerror or str(error))


def shown(path: bytes) -> str:
    """A path as text for people: whatever could move a terminal's cursor, or is no UTF-8, is escaped."""
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
