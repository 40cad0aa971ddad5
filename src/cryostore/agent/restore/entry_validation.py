"""Validation of archive entries: why an entry, or its extended attributes, cannot be restored."""

from __future__ import annotations

import stat

from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.archive.sparse_layout import data_bytes_of
from cryostore.agent.block import ExtraKind, holes_of
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.restore.special_files import special_file_maker

LINK_TARGET_BYTES_MAX = 4095
XATTR_NAME_BYTES_MAX = 255
XATTR_BYTES_MAX = 64 * 1024


def entry_fault(entry: ArchiveEntry) -> str | None:
    """Return why an entry cannot be restored, None if it can. Its content is not looked for."""
    try:
        if entry.row.is_file:
            return _file_fault(entry)
        return None if entry.row.is_directory else _special_file_fault(entry)
    except ArchiveDamagedError as error:
        return error.message


def _file_fault(entry: ArchiveEntry) -> str | None:
    size = entry.row.size
    if size < 0:
        return f"has the size {size}"
    data_bytes = data_bytes_of(size, holes_of(entry.extras, size))
    return "has no content" if data_bytes and not entry.content.object_number else None


def _special_file_fault(entry: ArchiveEntry) -> str | None:
    if stat.S_ISLNK(entry.row.mode):
        targets = [extra.data for extra in entry.extras if extra.kind == ExtraKind.LINK_TARGET]
        if not targets or not 0 < len(targets[-1]) <= LINK_TARGET_BYTES_MAX or b"\0" in targets[-1]:
            return "is a symlink without a target"
    if special_file_maker(entry.row, entry.extras) is None:
        return f"has the mode {entry.row.mode:o}, which is not of a kind that can be restored"
    return None


def xattr_fault(entry: ArchiveEntry) -> str | None:
    """Return the fault of an entry's extended attributes, None if there is none. The rest can be restored."""
    for extra in entry.extras:
        if extra.kind == ExtraKind.XATTR:
            name, zero, value = extra.data.partition(b"\0")
            if not zero or not 0 < len(name) <= XATTR_NAME_BYTES_MAX or len(value) > XATTR_BYTES_MAX:
                return "an extended attribute is damaged"
    return None
