"""Putting back what is not content: owners, modes, extended attributes, times.

In this order, because each undoes something of the one before it if it came first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cryostore.agent.block import Extra, ExtraKind, mtime_of
from cryostore.agent.entry import Row
from cryostore.agent.header import Header
from cryostore.agent.report import Report
from cryostore.agent.source.owners import local_groups, local_users

OURS = ("user.", "system.posix_acl_", "security.capability")
"""The attributes that are removed where the archive has none: others belong to the machine."""
NOT_SUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP)
CHANGED = "somebody else changed it while it was restored"
GROUP_RIGHTS = stat.S_IRWXG
ACCESS_ACL = b"system.posix_acl_access"
Problem = Callable[[str, str], None]
"""Takes the kind of an attribute that could not be set, and what to say about it."""


class RefusedAttributes:
    """Attributes that a target does not take, told once per kind: such a target refuses them for every file."""

    def __init__(self, report: Report, lock: threading.Lock) -> None:
        self._report = report
        self._lock = lock
        self._seen: dict[str, tuple[bytes, str, int]] = {}

    def of(self, path: bytes) -> Problem:
        """Take the problems of one entry."""
        return lambda kind, reason: self.note(path, kind, reason)

    def note(self, path: bytes, kind: str, reason: str) -> None:
        """Take a problem of an entry."""
        with self._lock:
            first, text, count = self._seen.get(kind, (path, reason, 0))
            self._seen[kind] = (first, text, count + 1)

    def tell(self) -> None:
        """Make each kind an issue, at the first entry that it was refused for."""
        with self._lock:
            for path, reason, count in self._seen.values():
                more = f" (and for {count - 1} more)" if count > 1 else ""
                self._report.issue(path, reason + more)
            self._seen.clear()


class AttributeSetter:
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
        """Whether what stands at a place has what `apply` would set, as far as this process may see that."""
        if self.sets_owners and (standing.st_uid, standing.st_gid) != self.owner(row):
            return False
        if not stat.S_ISLNK(row.mode) and stat.S_IMODE(standing.st_mode) != self.mode(row):
            return False
        if standing.st_mtime_ns != mtime_of(row, extras):
            return False
        wanted = _xattrs_of(extras)
        try:
            present = _present_xattrs(place, follow_symlinks=False)
            if any(name.startswith(OURS) and os.fsencode(name) not in wanted for name in present):
                return False
            return all(
                os.fsdecode(key) in present and os.getxattr(place, key, follow_symlinks=False) == value
                for key, value in wanted.items()
            )
        except OSError:
            return False

    def hands_over(self, standing: os.stat_result, row: Row, extras: Sequence[Extra], masters: frozenset[int]) -> bool:
        """Whether changing what stands in the target could give somebody what is neither theirs nor the archive's.

        `masters` are the users who could have put it there under this name: root's own file or folder, say, so that
        root makes it theirs; or a program of their own, so that root makes it run as somebody else.
        """
        if not self.sets_owners:
            return False
        user, group = self.owner(row)
        is_directory = stat.S_ISDIR(standing.st_mode)
        is_same_owner = standing.st_uid == user and (standing.st_gid == group or (is_directory and user != 0))
        if not masters:
            return standing.st_uid != 0 and not is_same_owner and not is_directory
        if not is_same_owner:
            return True
        is_looser = bool(self.mode(row) & ~stat.S_IMODE(standing.st_mode)) or bool(_xattrs_of(extras))
        return user == 0 and is_looser

    def apply(
        self, place: int | bytes, row: Row, extras: Sequence[Extra], problem: Problem, *, is_plain: bool = False
    ) -> None:
        """Set all attributes of an open file or directory, or of what a link of /proc/self/fd leads to.

        `is_plain` says that it was just made in a directory that hands nothing down: it has this process's owner and
        no extended attributes. What cannot be set is told to `problem`, and all else is set.
        """
        mode = self.mode(row)
        if self.sets_owners:
            owner = self.owner(row)
            if (not is_plain or owner != self._made_as) and not _give(place, owner, problem):
                mode = mode if stat.S_ISDIR(row.mode) else mode & ~(stat.S_ISUID | stat.S_ISGID)
        if not stat.S_ISLNK(row.mode):
            _set_mode(place, mode, problem)
        if (extras or not is_plain) and ACCESS_ACL in _set_xattrs(place, extras, problem):
            # Beside an ACL the mode's group rights are its mask: without it they would be everybody's in the group.
            _set_mode(place, mode & ~GROUP_RIGHTS, problem)
        try:
            os.utime(place, ns=(mtime_of(row, extras),) * 2)
        except (OSError, OverflowError) as error:
            _refused(problem, "time", "the modification time", error)

    def apply_to_made(self, parent: int, name: bytes, row: Row, extras: Sequence[Extra], problem: Problem) -> None:
        """As `apply`, to what is no file and was just made under a name.

        It is held while that is done: whoever changes the directory meanwhile cannot lead it to something else.
        Raises OSError if the name stands for something else by now.
        """
        with held(parent, name) as (place, found):
            if stat.S_IFMT(found.st_mode) != stat.S_IFMT(row.mode) or found.st_nlink != 1:
                raise OSError(errno.ESTALE, CHANGED)
            self.apply(place, row, extras, problem)

    def apply_to_standing(
        self,
        parent: int,
        name: bytes,
        standing: os.stat_result,
        row: Row,
        extras: Sequence[Extra],
        problem: Problem,
    ) -> None:
        """As `apply`, to what was found under a name. Raises OSError if the name stands for something else by now."""
        with held(parent, name) as (place, found):
            if not os.path.samestat(found, standing):
                raise OSError(errno.ESTALE, CHANGED)
            self.apply(place, row, extras, problem)


@contextmanager
def held(parent: int, name: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Hold what a name stands for without opening it: a path that leads to it alone, and its status. Raises OSError."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield b"/proc/self/fd/%d" % fd, os.fstat(fd)
    finally:
        os.close(fd)


def _give(place: int | bytes, owner: tuple[int, int], problem: Problem) -> bool:
    """Set the owner; tells whether that could be done. Root may not do it, or not for all, in a container."""
    try:
        os.chown(place, *owner)
    except OSError as error:
        found = os.stat(place)
        if (found.st_uid, found.st_gid) != owner:  # some file systems refuse even what is so already
            _refused(problem, "owner", f"the owner {owner[0]}:{owner[1]}", error)
            return False
    return True


def _set_mode(place: int | bytes, mode: int, problem: Problem) -> None:
    try:
        os.chmod(place, mode)
    except OSError as error:
        if stat.S_IMODE(os.stat(place).st_mode) != mode:
            _refused(problem, "mode", f"the mode {mode:04o}", error)


def _set_xattrs(place: int | bytes, extras: Sequence[Extra], problem: Problem) -> set[bytes]:
    """Set extended attributes and remove others that are ours to remove; return the names of those not set."""
    wanted = _xattrs_of(extras)
    try:
        present = _present_xattrs(place)
    except OSError as error:
        _refused(problem, "attributes", "which attributes there are", error, "read")
        present = []
    for name in present:
        if name.startswith(OURS) and os.fsencode(name) not in wanted:
            with contextlib.suppress(OSError):
                os.removexattr(place, name)
    refused = set()
    for key, value in wanted.items():
        name = os.fsdecode(key)
        try:
            if name not in present or not _has_xattr(place, name, value):
                os.setxattr(place, name, value)
        except OSError as error:
            _refused(problem, f"attribute {name.partition('.')[0]}", f"attribute {name!a}", error)
            refused.add(key)
    return refused


def _has_xattr(place: int | bytes, name: str, value: bytes) -> bool:
    try:
        return os.getxattr(place, name) == value
    except OSError:  # who may not read a file can still write its attributes
        return False


def _refused(problem: Problem, kind: str, what: str, error: OSError | OverflowError, verb: str = "set") -> None:
    number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (0, str(error))
    problem(f"{kind} {number}", f"{what} cannot be {verb}: {reason}")


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
