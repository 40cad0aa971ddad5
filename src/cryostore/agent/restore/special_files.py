"""Special files of a restore (symlinks, FIFOs and devices): created, and compared with existing ones."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from cryostore.agent.block import Extra, ExtraKind
from cryostore.agent.entry import Row
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.restore.attributes import AttributeSetter


def matches_archive(
    parent: int, name: bytes, existing: os.stat_result, row: Row, extras: Sequence[Extra], attributes: AttributeSetter
) -> bool:
    """Return whether the existing entry equals the archived one in kind, target or device number, and attributes.

    The entry must be one that `special_file_maker` can create. Raises OSError.
    """
    if stat.S_IFMT(existing.st_mode) != stat.S_IFMT(row.mode):
        return False
    data = {extra.kind: extra.data for extra in extras}
    if stat.S_ISLNK(row.mode) and os.readlink(name, dir_fd=parent) != data[ExtraKind.LINK_TARGET]:
        return False
    is_device = stat.S_ISCHR(row.mode) or stat.S_ISBLK(row.mode)
    if is_device and existing.st_rdev != _device_of(data[ExtraKind.DEVICE_NUMBER]):
        return False
    return attributes.match(b"/proc/self/fd/%d/%s" % (parent, name), existing, row, extras)


def special_file_maker(row: Row, extras: Sequence[Extra]) -> Callable[[bytes, int], None] | None:
    """Return a function that creates a special file under a name in a directory; None if that is not possible."""
    data = {extra.kind: extra.data for extra in extras}
    if stat.S_ISLNK(row.mode) and b"\0" not in data.get(ExtraKind.LINK_TARGET, b"\0"):
        return lambda name, parent: os.symlink(data[ExtraKind.LINK_TARGET], name, dir_fd=parent)
    if stat.S_ISFIFO(row.mode):
        return lambda name, parent: os.mkfifo(name, 0o600, dir_fd=parent)
    number = data.get(ExtraKind.DEVICE_NUMBER, b"")
    if (stat.S_ISCHR(row.mode) or stat.S_ISBLK(row.mode)) and len(number) == 8:
        device = _device_of(number)
        return lambda name, parent: os.mknod(name, stat.S_IFMT(row.mode) | 0o600, device, dir_fd=parent)
    return None


def _device_of(number: bytes) -> int:
    try:
        device = os.makedev(int.from_bytes(number[:4], "little"), int.from_bytes(number[4:], "little"))
    except OverflowError:
        device = -1
    if device < 0:
        raise ArchiveDamagedError("a device number is out of range")
    return device
