"""Extended attributes of source entries, ACLs and capabilities among them."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from cryostore.agent.block import ENTRY_BYTES_MAX, Extra, ExtraKind
from cryostore.agent.source.walk import DIRECTORY_FLAGS, open_without_atime

UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA, errno.ENOSYS)
"""Errors of a file system that has no extended attributes."""
COMMON_NAMES = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
"""The attributes that are read by name if the names cannot be listed."""
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)


class Attributes(NamedTuple):
    """The extras of an entry, and why some of its attributes could not be read.

    `gone` means that the entry is a directory that no longer exists: if it comes back, its attributes are missing.
    """

    extras: list[Extra]
    missing: list[str]
    gone: bool = False


def read_attributes(file: int | bytes) -> Attributes:
    """All extended attributes of an open descriptor, or of a path without following a symlink, sorted by name."""
    follow = isinstance(file, int)
    missing: list[str] = []
    listed = True
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return Attributes([], [])
        missing.append(f"its extended attributes cannot be listed: {error.strerror}")
        names = list(COMMON_NAMES)
        listed = False
    extras: list[Extra] = []
    length = 0
    for name in sorted(names) if names else ():
        try:
            value = os.getxattr(file, name, follow_symlinks=follow)
        except OSError as error:
            if listed and error.errno != errno.ENODATA:  # else it was removed meanwhile, or never existed
                missing.append(f"attribute {name!a} cannot be read: {error.strerror}")
            continue
        length += len(value) + len(name)
        if length > ENTRY_BYTES_MAX:
            missing.append(f"attribute {name!a} and those after it are left out: together they are too long")
            break
        extras.append(Extra(ExtraKind.XATTR, os.fsencode(name) + b"\0" + value))
    return Attributes(extras, missing)


def read_directory_attributes(parent: int, name: bytes) -> Attributes:
    """The extended attributes of a directory, which this opens to read them."""
    try:
        fd = open_without_atime(name, DIRECTORY_FLAGS, parent)
    except OSError as error:
        gone = error.errno in GONE
        return Attributes([], [] if gone else [f"its extended attributes cannot be listed: {error.strerror}"], gone)
    try:
        return read_attributes(fd)
    finally:
        os.close(fd)
