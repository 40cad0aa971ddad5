"""Putting back what is not content: owners, modes, extended attributes, times.

In this order, because each undoes something of the one before it if it came first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence

from cryostore.agent.block import Extra, ExtraKind, mtime_of
from cryostore.agent.entry import Row
from cryostore.agent.header import Header
from cryostore.agent.owners import local_groups, local_users

OURS = ("user.", "system.posix_acl_", "security.capability")
"""The attributes that are removed where the archive has none: others belong to the machine."""
NOT_SUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP)
NOT_ALLOWED = (errno.EPERM, errno.EINVAL)
"""What a kernel says of an owner that this process may not give, or that its namespace does not have."""
Problem = Callable[[str], None]


class Attributes:
    """Sets attributes as this process may: owners only as root, by name where this machine knows it."""

    def __init__(self, header: Header, *, numeric_owner: bool = False) -> None:
        self.sets_owners = os.geteuid() == 0
        self._made_as = (os.geteuid(), os.getegid())
        self._users = {} if numeric_owner else local_users(header.users)
        self._groups = {} if numeric_owner else local_groups(header.groups)

    def owner(self, row: Row) -> tuple[int, int]:
        """Who has it on this machine, by the names in the archive."""
        return self._users.get(row.uid, row.uid), self._groups.get(row.gid, row.gid)

    def mode(self, row: Row) -> int:
        """The mode. Without the right to set owners, setuid and setgid are kept for who has them already.

        A program that was to run as somebody else must not run as whoever restored it. Of a directory they only say
        what is inherited.
        """
        mode = stat.S_IMODE(row.mode)
        if self.sets_owners or stat.S_ISDIR(row.mode):
            return mode
        user, group = self.owner(row)
        if user != self._made_as[0]:
            mode &= ~stat.S_ISUID
        if group != self._made_as[1]:
            mode &= ~stat.S_ISGID
        return mode

    def fit(self, place: bytes, standing: os.stat_result, row: Row, extras: Sequence[Extra]) -> bool:
        """Whether what stands at a place has what `apply` would set. Raises OSError."""
        if self.sets_owners and (standing.st_uid, standing.st_gid) != self.owner(row):
            return False
        if not stat.S_ISLNK(row.mode) and stat.S_IMODE(standing.st_mode) != self.mode(row):
            return False
        if standing.st_mtime_ns != mtime_of(row, extras):
            return False
        wanted = _xattrs_of(extras)
        present = _present_xattrs(place, follow_symlinks=False)
        if any(name.startswith(OURS) and os.fsencode(name) not in wanted for name in present):
            return False
        return all(
            os.fsdecode(key) in present and os.getxattr(place, key, follow_symlinks=False) == value
            for key, value in wanted.items()
        )

    def apply(
        self, place: int | bytes, row: Row, extras: Sequence[Extra], problem: Problem, *, is_plain: bool = False
    ) -> None:
        """Set all attributes of an open file or directory, or of what a link of /proc/self/fd leads to.

        `is_plain` says that it was just made in a directory that hands nothing down: it has this process's owner and
        no extended attributes. Raises OSError; what only some file systems or users can do is told to `problem`.
        """
        mode = self.mode(row)
        if self.sets_owners:
            owner = self.owner(row)
            if (not is_plain or owner != self._made_as) and not _give(place, owner, problem):
                mode = mode if stat.S_ISDIR(row.mode) else mode & ~(stat.S_ISUID | stat.S_ISGID)
        if not stat.S_ISLNK(row.mode):
            os.chmod(place, mode)
        if extras or not is_plain:
            _set_xattrs(place, extras, problem)
        os.utime(place, ns=(mtime_of(row, extras),) * 2)

    def apply_to_made(self, parent: int, name: bytes, row: Row, extras: Sequence[Extra], problem: Problem) -> None:
        """As `apply`, to what is no file and was just made under a name.

        It is held while that is done: whoever changes the directory meanwhile cannot lead it to something else.
        """
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            found = os.fstat(fd)
            if stat.S_IFMT(found.st_mode) != stat.S_IFMT(row.mode) or found.st_nlink != 1:
                raise OSError(errno.ESTALE, "somebody else changed it while it was restored")
            self.apply(b"/proc/self/fd/%d" % fd, row, extras, problem)
        finally:
            os.close(fd)


def _give(place: int | bytes, owner: tuple[int, int], problem: Problem) -> bool:
    """Set the owner; tells whether that could be done. Root may not do it, or not for all, in a container."""
    try:
        os.chown(place, *owner)
    except OSError as error:
        if error.errno not in NOT_ALLOWED:
            raise
        problem(f"the owner {owner[0]}:{owner[1]} cannot be set: {error.strerror}")
        return False
    return True


def _set_xattrs(place: int | bytes, extras: Sequence[Extra], problem: Problem) -> None:
    wanted = _xattrs_of(extras)
    present = _present_xattrs(place)
    for name in present:
        if name.startswith(OURS) and os.fsencode(name) not in wanted:
            with contextlib.suppress(OSError):
                os.removexattr(place, name)
    for key, value in wanted.items():
        name = os.fsdecode(key)
        try:
            if name not in present or os.getxattr(place, name) != value:
                os.setxattr(place, name, value)
        except OSError as error:
            problem(f"attribute {name!a} cannot be set: {error.strerror}")


def _xattrs_of(extras: Sequence[Extra]) -> dict[bytes, bytes]:
    found = [extra.data.split(b"\0", 1) for extra in extras if extra.kind == ExtraKind.XATTR and b"\0" in extra.data]
    return dict(found)


def _present_xattrs(place: int | bytes, *, follow_symlinks: bool = True) -> list[str]:
    try:
        return os.listxattr(place, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        return []
