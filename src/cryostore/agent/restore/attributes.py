"""Attributes of restored entries: owner, mode, extended attributes, modification time.

They are set in this order, because each of these calls changes something that one of the later calls sets.
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

REMOVED_PREFIXES = ("user.", "system.posix_acl_", "security.capability")
"""Extended attributes that are removed if the archive does not have them. Others belong to the machine."""
NOT_SUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP)
CHANGED = "another process changed it during the restore"
GROUP_RIGHTS = stat.S_IRWXG
ACCESS_ACL = b"system.posix_acl_access"
ReportRefusal = Callable[[str, str], None]
"""Takes the kind of an attribute that could not be set, and the reason."""


class RefusedAttributes:
    """Attributes that the target refused, reported once per kind: such a target refuses them for every file."""

    def __init__(self, report: Report, lock: threading.Lock) -> None:
        self._report = report
        self._lock = lock
        self._seen: dict[str, tuple[bytes, str, int]] = {}

    def reporter(self, path: bytes) -> ReportRefusal:
        """Return a function that notes the refusals for one entry."""
        return lambda kind, reason: self.note(path, kind, reason)

    def note(self, path: bytes, kind: str, reason: str) -> None:
        """Note a refusal for an entry."""
        with self._lock:
            first, text, count = self._seen.get(kind, (path, reason, 0))
            self._seen[kind] = (first, text, count + 1)

    def report_issues(self) -> None:
        """Report each kind as one issue, at the first entry that it was refused for."""
        with self._lock:
            for path, reason, count in self._seen.values():
                more = f" (and for {count - 1} more)" if count > 1 else ""
                self._report.issue(path, reason + more)
            self._seen.clear()


class AttributeSetter:
    """Sets attributes as this process may: owners only as root, by name where this machine knows the name."""

    def __init__(self, header: Header, *, numeric_owner: bool = False) -> None:
        self.sets_owners = os.geteuid() == 0
        self._process_owner = (os.geteuid(), os.getegid())
        self._users = {} if numeric_owner else local_users(header.users)
        self._groups = {} if numeric_owner else local_groups(header.groups)

    def local_owner(self, row: Row) -> tuple[int, int]:
        """Return user and group of an entry on this machine, mapped by the names in the archive."""
        return self._users.get(row.uid, row.uid), self._groups.get(row.gid, row.gid)

    def safe_mode(self, row: Row) -> int:
        """Return the mode to set, without setuid or setgid if this process cannot set the owner they apply to.

        A program that ran as another user must not run as the user who restored it. On a directory these bits only
        control inheritance.
        """
        mode = stat.S_IMODE(row.mode)
        if self.sets_owners or stat.S_ISDIR(row.mode):
            return mode
        user, group = self.local_owner(row)
        if user != self._process_owner[0]:
            mode &= ~stat.S_ISUID
        if group != self._process_owner[1]:
            mode &= ~stat.S_ISGID
        return mode

    def match(self, place: bytes, existing: os.stat_result, row: Row, extras: Sequence[Extra]) -> bool:
        """Return whether an existing entry has all that `apply` would set, as far as this process can see."""
        if self.sets_owners and (existing.st_uid, existing.st_gid) != self.local_owner(row):
            return False
        if not stat.S_ISLNK(row.mode) and stat.S_IMODE(existing.st_mode) != self.safe_mode(row):
            return False
        if existing.st_mtime_ns != mtime_of(row, extras):
            return False
        wanted = _xattrs_of(extras)
        try:
            present = _present_xattrs(place, follow_symlinks=False)
            if any(name.startswith(REMOVED_PREFIXES) and os.fsencode(name) not in wanted for name in present):
                return False
            return all(
                os.fsdecode(key) in present and os.getxattr(place, key, follow_symlinks=False) == value
                for key, value in wanted.items()
            )
        except OSError:
            return False

    def would_expose(
        self, existing: os.stat_result, row: Row, extras: Sequence[Extra], replacers: frozenset[int]
    ) -> bool:
        """Return whether changing an existing entry could give a user access that neither they nor the archive had.

        `replacers` are the users who could have put the entry there under this name. One of them could have put root's
        own file there, so that root gives it to them; or a program of theirs, so that root makes it run as another
        user.
        """
        if not self.sets_owners:
            return False
        user, group = self.local_owner(row)
        is_directory = stat.S_ISDIR(existing.st_mode)
        is_same_owner = existing.st_uid == user and (existing.st_gid == group or (is_directory and user != 0))
        if not replacers:
            return existing.st_uid != 0 and not is_same_owner and not is_directory
        if not is_same_owner:
            return True
        is_looser = bool(self.safe_mode(row) & ~stat.S_IMODE(existing.st_mode)) or bool(_xattrs_of(extras))
        return user == 0 and is_looser

    def apply(
        self,
        place: int | bytes,
        row: Row,
        extras: Sequence[Extra],
        report_refusal: ReportRefusal,
        *,
        inherited_nothing: bool = False,
    ) -> None:
        """Set all attributes of an open file or directory, or of the target of a link in /proc/self/fd.

        `inherited_nothing` means that the entry was just created in a directory without inherited attributes: it has
        this process's owner and no extended attributes. Refusals go to `report_refusal`, and all other attributes are
        set.
        """
        mode = self.safe_mode(row)
        if self.sets_owners:
            owner = self.local_owner(row)
            if (not inherited_nothing or owner != self._process_owner) and not _set_owner(place, owner, report_refusal):
                mode = mode if stat.S_ISDIR(row.mode) else mode & ~(stat.S_ISUID | stat.S_ISGID)
        if not stat.S_ISLNK(row.mode):
            _set_mode(place, mode, report_refusal)
        if (extras or not inherited_nothing) and ACCESS_ACL in _set_xattrs(place, extras, report_refusal):
            # With an ACL, the group bits of the mode are its mask. Without it, they would apply to the whole group.
            _set_mode(place, mode & ~GROUP_RIGHTS, report_refusal)
        try:
            os.utime(place, ns=(mtime_of(row, extras),) * 2)
        except (OSError, OverflowError) as error:
            _refused(report_refusal, "time", "the modification time", error)

    def apply_to_created(
        self, parent: int, name: bytes, row: Row, extras: Sequence[Extra], report_refusal: ReportRefusal
    ) -> None:
        """Set attributes, as `apply` does, of an entry that was just created under a name and is not a regular file.

        A descriptor holds the entry meanwhile: a user who changes the directory cannot redirect the calls to another
        file. Raises OSError if the name leads to another entry by now.
        """
        with held(parent, name) as (place, found):
            if stat.S_IFMT(found.st_mode) != stat.S_IFMT(row.mode) or found.st_nlink != 1:
                raise OSError(errno.ESTALE, CHANGED)
            self.apply(place, row, extras, report_refusal)

    def apply_to_existing(
        self,
        parent: int,
        name: bytes,
        existing: os.stat_result,
        row: Row,
        extras: Sequence[Extra],
        report_refusal: ReportRefusal,
    ) -> None:
        """Set attributes, as `apply` does, of an existing entry.

        Raises OSError if the name leads to another entry by now.
        """
        with held(parent, name) as (place, found):
            if not os.path.samestat(found, existing):
                raise OSError(errno.ESTALE, CHANGED)
            self.apply(place, row, extras, report_refusal)


@contextmanager
def held(parent: int, name: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Hold an entry without opening it; yield a path that leads to it alone, and its status. Raises OSError."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield b"/proc/self/fd/%d" % fd, os.fstat(fd)
    finally:
        os.close(fd)


def _set_owner(place: int | bytes, owner: tuple[int, int], report_refusal: ReportRefusal) -> bool:
    """Set the owner; return whether that worked. In a container, root may not be allowed to."""
    try:
        os.chown(place, *owner)
    except OSError as error:
        found = os.stat(place)
        if (found.st_uid, found.st_gid) != owner:  # some file systems refuse even the owner that is already set
            _refused(report_refusal, "owner", f"the owner {owner[0]}:{owner[1]}", error)
            return False
    return True


def _set_mode(place: int | bytes, mode: int, report_refusal: ReportRefusal) -> None:
    try:
        os.chmod(place, mode)
    except OSError as error:
        if stat.S_IMODE(os.stat(place).st_mode) != mode:
            _refused(report_refusal, "mode", f"the mode {mode:04o}", error)


def _set_xattrs(place: int | bytes, extras: Sequence[Extra], report_refusal: ReportRefusal) -> set[bytes]:
    """Set extended attributes and remove those of REMOVED_PREFIXES; return the names of those not set."""
    wanted = _xattrs_of(extras)
    try:
        present = _present_xattrs(place)
    except OSError as error:
        _refused(report_refusal, "attributes", "the list of extended attributes", error, "read")
        present = []
    for name in present:
        if name.startswith(REMOVED_PREFIXES) and os.fsencode(name) not in wanted:
            with contextlib.suppress(OSError):
                os.removexattr(place, name)
    refused = set()
    for key, value in wanted.items():
        name = os.fsdecode(key)
        try:
            if name not in present or not _has_xattr(place, name, value):
                os.setxattr(place, name, value)
        except OSError as error:
            _refused(report_refusal, f"attribute {name.partition('.')[0]}", f"attribute {name!a}", error)
            refused.add(key)
    return refused


def _has_xattr(place: int | bytes, name: str, value: bytes) -> bool:
    try:
        return os.getxattr(place, name) == value
    except OSError:  # a process that cannot read a file may still be able to write its attributes
        return False


def _refused(
    report_refusal: ReportRefusal, kind: str, what: str, error: OSError | OverflowError, verb: str = "set"
) -> None:
    number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (0, str(error))
    report_refusal(f"{kind} {number}", f"{what} cannot be {verb}: {reason}")


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
