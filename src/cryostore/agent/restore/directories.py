"""Directories of a file tree restore: found or created, made writable meanwhile, given their attributes at the end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.block import Extra
from cryostore.agent.entry import Row
from cryostore.agent.errors import shown
from cryostore.agent.restore.attributes import CHANGED, AttributeSetter, RefusedAttributes
from cryostore.agent.restore.name_collisions import CollisionGuard, name_collision, status_of
from cryostore.agent.restore.target_directories import ROOT, TargetDirectories, is_new, passes_nothing_on

Issue = Callable[[bytes, str], None]
"""Takes a path and the problem there."""
FOREIGN = "belongs to {}:{} in a folder that other users can change: its owner, mode and times were not changed"


@dataclass(slots=True)
class _FinalAttributes:
    """The attributes that a directory gets when everything in it is restored."""

    number: int
    row: Row
    extras: Sequence[Extra]


class RestoredDirectories:
    """The directories of one restore, by their paths in the archive. For one thread."""

    def __init__(
        self,
        target: TargetDirectories,
        guard: CollisionGuard,
        attributes: AttributeSetter,
        refusals: RefusedAttributes,
        issue: Issue,
        *,
        never: bool,
    ) -> None:
        """With `never`, existing entries of the target stay as they are."""
        self._target = target
        self._guard = guard
        self._attributes = attributes
        self._refusals = refusals
        self._issue = issue
        self._never = never
        self._readonly = _ReadonlyDirectories(target)
        self._numbers: dict[bytes, int] = {}
        self._unfinished: list[_FinalAttributes] = []

    def number(self, path: bytes) -> int | None:
        """Return the number of a directory in the target, None if it was not restored."""
        return self._numbers.get(path)

    def begin_root(self, path: bytes, row: Row, extras: Sequence[Extra], *, dry_run: bool, keep: bool) -> None:
        """Make the target itself the directory at a path; with `keep`, a target that existed keeps its attributes."""
        self._numbers[path] = ROOT
        status = None
        if not dry_run:
            with self._target.at(ROOT) as fd:
                self._readonly.make_writable(ROOT, fd, b".")
                status = os.fstat(fd)
        self._guard.add_directory(ROOT, row, status)
        if self._target.root_is_created or not (keep or self._never):
            self._unfinished.append(_FinalAttributes(ROOT, row, extras))

    def simulate_add(self, number: int, name: bytes, entry: ArchiveEntry) -> tuple[bool, os.stat_result | None]:
        """Do what `add` does in a dry run; return whether it would create the directory, and the existing entry."""
        existing = self._guard.existing(number, name)
        is_found = existing is not None and stat.S_ISDIR(existing.st_mode)
        if existing is not None and not is_found:
            self._check_gives_way(number, existing)
        if not (is_found and existing and self._is_known(number, entry, existing)):
            self._note(number, name, entry, existing if is_found else None, created=not is_found)
        return not is_found, existing

    def add(self, number: int, name: bytes, entry: ArchiveEntry) -> None:
        """Find or create a directory in directory `number`. Raises OSError."""
        status = self._guard.existing(number, name)
        made = False
        if status is None or not stat.S_ISDIR(status.st_mode):
            status, made = self._make(number, name, status)
        if not made and self._is_known(number, entry, status):
            return
        if made:
            self._note(number, name, entry, status, created=True)
            return
        below = self._note(number, name, entry, status, created=False)
        with self._target.at(number) as parent:
            self._readonly.make_writable(below, parent, name)

    def _check_gives_way(self, number: int, existing: os.stat_result) -> None:
        if self._never:
            raise OSError(errno.ENOTDIR, "is not a directory in the target; its content was not restored")
        if self._guard.is_occupied(number, existing):
            raise name_collision()

    def _make(self, number: int, name: bytes, existing: os.stat_result | None) -> tuple[os.stat_result, bool]:
        """Create a directory; return its status, and whether this call created it."""
        with self._target.at(number) as parent:
            if existing is not None:
                self._check_gives_way(number, existing)
                os.unlink(name, dir_fd=parent)
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:  # under another name of it, or by another process
                found = status_of(parent, name)
                if found is None or self._guard.directory_number(found) is None:
                    raise name_collision() from None
                return found, False
            made = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if self._target.replacers(number) and not is_new(made, name, parent):
                raise OSError(errno.ESTALE, CHANGED)
            return made, True

    def _is_known(self, number: int, entry: ArchiveEntry, status: os.stat_result) -> bool:
        """Return whether this restore has reached the directory under another name; then both are restored into it."""
        if (known := self._guard.directory_number(status)) is None:
            return False
        self._numbers[entry.path] = known
        if self._guard.note_alias(known, entry.row, number):
            other = shown(self._target.path(known)) or "."
            self._issue(
                entry.path, f"is the same folder as {other} in the target: the content of both was restored into it"
            )
        return True

    def _note(
        self, number: int, name: bytes, entry: ArchiveEntry, status: os.stat_result | None, *, created: bool
    ) -> int:
        passes_on = True
        if created and status is not None:
            with self._target.at(number) as parent:
                # Everything created below such a directory inherits nothing either.
                passes_on = not (self._target.passes_nothing_on(number) or passes_nothing_on(status, name, parent))
        below = self._target.add(number, name, status, created=created, passes_nothing_on=not passes_on)
        self._guard.add_directory(below, entry.row, status)
        self._numbers[entry.path] = below
        if created or not self._never:
            self._unfinished.append(_FinalAttributes(below, entry.row, entry.extras))
        return below

    def unfinished(self) -> Sequence[int]:
        """Return the numbers of the directories that wait for their attributes, subdirectories first."""
        return [end.number for end in reversed(self._unfinished)]

    def finish_last(self) -> None:
        """Set the attributes of the first directory of `unfinished` and drop it. Raises OSError."""
        end = self._unfinished.pop()
        number, path = end.number, self._target.path(end.number)
        with self._target.at(number) as fd:
            if number != ROOT and not self._target.is_created(number):
                existing = os.fstat(fd)
                replacers = self._target.replacers(self._target.parent(number))
                if self._attributes.would_expose(existing, end.row, end.extras, replacers):
                    self._issue(path, FOREIGN.format(existing.st_uid, existing.st_gid))
                    return
            report_refusal = self._refusals.reporter(path)
            self._attributes.apply(
                fd, end.row, end.extras, report_refusal, inherited_nothing=self._target.passes_nothing_on(number)
            )
            self._readonly.keep_mode(number)

    def close(self) -> None:
        """Restore the modes of directories that were made writable and got no attributes."""
        self._readonly.close()


class _ReadonlyDirectories:
    """The read-only directories that were made writable, by number, with their previous modes.

    Root does not need this.
    """

    def __init__(self, target: TargetDirectories) -> None:
        self._target = target
        self._user = os.geteuid()
        self._modes: dict[int, int] = {}

    def make_writable(self, number: int, parent: int, name: bytes) -> None:
        """Let this user write in a directory, if this user owns it. Raises OSError."""
        if self._user == 0:
            return
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            existing = os.fstat(fd)
            mode = stat.S_IMODE(existing.st_mode)
            if existing.st_uid == self._user and mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(b"/proc/self/fd/%d" % fd, mode | stat.S_IRWXU)
                self._modes[number] = mode
        finally:
            os.close(fd)

    def keep_mode(self, number: int) -> None:
        """Forget the previous mode of a directory: it has its restored mode now."""
        self._modes.pop(number, None)

    def close(self) -> None:
        """Restore the previous modes that are left, subdirectories first."""
        for number, mode in reversed(self._modes.items()):
            with suppress(OSError), self._target.at(number) as fd:
                os.chmod(fd, mode)
