"""Directories of a restore: found or made, opened to this user meanwhile, and given their attributes at the end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.block import Extra
from cryostore.agent.entry import Row
from cryostore.agent.errors import shown
from cryostore.agent.restore.attributes import CHANGED, AttributeSetter, RefusedAttributes
from cryostore.agent.restore.name_collisions import CollisionGuard, name_collision, status_of
from cryostore.agent.restore.readonly_directories import ReadonlyDirectories
from cryostore.agent.restore.target_directories import ROOT, TargetDirectories, is_new, is_plain

Issue = Callable[[bytes, str], None]
"""Takes a path and what is wrong with it."""
FOREIGN = "belongs to {}:{} in a folder that others can change: its owner, mode and times were left as they are"


@dataclass(slots=True)
class _End:
    """What is done to a directory when all else is done."""

    number: int
    row: Row
    extras: Sequence[Extra]


class RestoredDirectories:
    """The directories of one restore, by their paths in the archive. For one thread."""

    def __init__(
        self,
        target: TargetDirectories,
        places: CollisionGuard,
        attributes: AttributeSetter,
        refusals: RefusedAttributes,
        issue: Issue,
        *,
        never: bool,
    ) -> None:
        """`never` leaves what stands in the target as it is."""
        self._target = target
        self._places = places
        self._attributes = attributes
        self._refusals = refusals
        self._issue = issue
        self._never = never
        self._shut = ReadonlyDirectories(target)
        self._numbers: dict[bytes, int] = {}
        self._ends: list[_End] = []

    def number(self, path: bytes) -> int | None:
        """The number of a directory in the target, None if it was not restored."""
        return self._numbers.get(path)

    def begin_root(self, path: bytes, row: Row, extras: Sequence[Extra], *, dry_run: bool, keep: bool) -> None:
        """Note the target itself as what is at a path; with `keep` it keeps its attributes if it was there before."""
        self._numbers[path] = ROOT
        status = None
        if not dry_run:
            with self._target.at(ROOT) as fd:
                self._shut.open_up(ROOT, fd, b".")
                status = os.fstat(fd)
        self._places.add_directory(ROOT, row, status)
        if self._target.made or not (keep or self._never):
            self._ends.append(_End(ROOT, row, extras))

    def try_one(self, number: int, name: bytes, entry: ArchiveEntry) -> tuple[bool, os.stat_result | None]:
        """As `add` in a dry run: tells whether a directory would be made, and what stands in its place."""
        standing = self._places.standing(number, name)
        is_found = standing is not None and stat.S_ISDIR(standing.st_mode)
        if standing is not None and not is_found:
            self._check_gives_way(number, standing)
        if not (is_found and standing and self._is_known(number, entry, standing)):
            self._note(number, name, entry, standing if is_found else None, fresh=not is_found)
        return not is_found, standing

    def add(self, number: int, name: bytes, entry: ArchiveEntry) -> None:
        """Find or make a directory in the one numbered `number`. Raises OSError."""
        status = self._places.standing(number, name)
        made = False
        if status is None or not stat.S_ISDIR(status.st_mode):
            status, made = self._make(number, name, status)
        if not made and self._is_known(number, entry, status):
            return
        if made:
            self._note(number, name, entry, status, fresh=True)
            return
        below = self._note(number, name, entry, status, fresh=False)
        with self._target.at(number) as parent:
            self._shut.open_up(below, parent, name)

    def _check_gives_way(self, number: int, standing: os.stat_result) -> None:
        if self._never:
            raise OSError(errno.ENOTDIR, "is no directory in the target; what is in it was not restored")
        if self._places.claimed(number, standing):
            raise name_collision()

    def _make(self, number: int, name: bytes, standing: os.stat_result | None) -> tuple[os.stat_result, bool]:
        """Make a directory; return what stands there now, and whether this made it."""
        with self._target.at(number) as parent:
            if standing is not None:
                self._check_gives_way(number, standing)
                os.unlink(name, dir_fd=parent)
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:  # by another name, or somebody else made it
                found = status_of(parent, name)
                if found is None or self._places.known(found) is None:
                    raise name_collision() from None
                return found, False
            made = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if self._target.masters(number) and not is_new(made, name, parent):
                raise OSError(errno.ESTALE, CHANGED)
            return made, True

    def _is_known(self, number: int, entry: ArchiveEntry, status: os.stat_result) -> bool:
        """Whether this restore has come to a directory by another name; then both are put into it."""
        if (known := self._places.known(status)) is None:
            return False
        self._numbers[entry.path] = known
        if self._places.share(known, entry.row, number):
            other = shown(self._target.path(known)) or "."
            self._issue(entry.path, f"is the same folder as {other} in the target: what is in both was put into it")
        return True

    def _note(
        self, number: int, name: bytes, entry: ArchiveEntry, status: os.stat_result | None, *, fresh: bool
    ) -> int:
        plain = False
        if fresh and status is not None:
            with self._target.at(number) as parent:
                # Below a plain one there are none but plain ones: it has nothing to hand down.
                plain = self._target.plain(number) or is_plain(status, name, parent)
        below = self._target.add(number, name, status, fresh=fresh, plain=plain)
        self._places.add_directory(below, entry.row, status)
        self._numbers[entry.path] = below
        if fresh or not self._never:
            self._ends.append(_End(below, entry.row, entry.extras))
        return below

    def ends(self) -> Sequence[int]:
        """The numbers of the directories whose attributes are to be set, those in others first."""
        return [end.number for end in reversed(self._ends)]

    def end_last(self) -> None:
        """Set the attributes of the first of `ends` and drop it. Raises OSError."""
        end = self._ends.pop()
        number, path = end.number, self._target.path(end.number)
        with self._target.at(number) as fd:
            if number != ROOT and not self._target.fresh(number):
                standing = os.fstat(fd)
                masters = self._target.masters(self._target.parent(number))
                if self._attributes.hands_over(standing, end.row, end.extras, masters):
                    self._issue(path, FOREIGN.format(standing.st_uid, standing.st_gid))
                    return
            problem = self._refusals.of(path)
            self._attributes.apply(fd, end.row, end.extras, problem, is_plain=self._target.plain(number))
            self._shut.ended(number)

    def close(self) -> None:
        """Shut the directories that were opened to this user and got no attributes."""
        self._shut.close()
