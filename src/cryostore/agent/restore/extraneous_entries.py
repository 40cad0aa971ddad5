"""Extraneous entries: entries of restored folders that the recovery point does not have. `--delete` removes them.

Nothing is removed that this run created or kept, whatever name the target lists it under. Nothing is removed on a file
system that is mounted in the target and was not mounted during the backup.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from cryostore.agent.restore.name_collisions import CollisionGuard, status_of
from cryostore.agent.restore.target_directories import ROOT, TargetDirectories
from cryostore.agent.restore.tree_removal import MOUNTED, Mount, remove_tree
from cryostore.agent.source.walk import join
from cryostore.core import interrupts

Inode = tuple[int, int]


class ExtraneousEntries:
    """Removes extraneous entries from directories that existed in the target."""

    def __init__(
        self,
        target: TargetDirectories,
        guard: CollisionGuard,
        is_selected: Callable[[bytes, bool], bool],
        *,
        dry_run: bool,
    ) -> None:
        """`is_selected` says of a path below the target's root whether the restore includes it."""
        self._target = target
        self._guard = guard
        self._is_selected = is_selected
        self._dry_run = dry_run
        self._names: dict[int, set[bytes]] = {}
        self._foreign: set[int] = set()
        """Directories on which a file system is mounted that the archive does not know."""

    def keep(self, number: int, names: list[bytes]) -> None:
        """Note the names that the archive has in a directory."""
        if not self._target.is_created(number):
            self._names.setdefault(number, set()).update(names)

    def directories(self) -> list[int]:
        """Return the directories to look through, parents first."""
        return list(self._names)

    def remove(self, number: int, on_entry: Callable[[bytes], None]) -> int:
        """Remove the extraneous entries of a directory; return how many were removed. Raises OSError."""
        interrupts.check()
        wanted = self._names.pop(number)
        removed = 0
        path = self._target.path(number)
        report_problem = self._guard.issue_reporter(number)
        mount = self._foreign_mount(number)
        with self._target.at(number) as parent:
            listed = {os.fsencode(entry) for entry in os.listdir(parent)}
            kept = self._inodes(parent, wanted - listed) if listed - wanted else set()
            for name in sorted(listed - wanted):
                found = status_of(parent, name)
                if found is None or (found.st_dev, found.st_ino) in kept:
                    continue
                if not self._is_selected(join(path, name), stat.S_ISDIR(found.st_mode)):
                    continue
                if mount is not None:
                    self._guard.issue_reporter(ROOT)(self._target.path(mount) or b".", MOUNTED)
                    break
                gone = remove_tree(parent, name, report_problem, spared=self._spared(path), dry_run=self._dry_run)
                if gone:
                    on_entry(join(path, name))
                removed += gone
        return removed

    def _spared(self, above: bytes) -> Callable[[bytes, bool], bool]:
        return lambda path, is_directory: not self._is_selected(join(above, path), is_directory)

    def _inodes(self, parent: int, names: set[bytes]) -> set[Inode]:
        """Return device and inode of the entries of these names, which the directory lists under other names."""
        found = (status_of(parent, name) for name in names)
        return {(status.st_dev, status.st_ino) for status in found if status is not None}

    def _foreign_mount(self, number: int) -> int | None:
        """Return the nearest directory, here or above, with a mounted file system that the archive does not know."""
        if number == ROOT:
            return None
        parent = self._target.parent(number)
        with self._target.at(number) as here, self._target.at(parent) as above:
            if Mount.of(here) != Mount.of(above) and self._guard.archived_device(number) == self._guard.archived_device(
                parent
            ):
                self._foreign.add(number)
        while number != ROOT and number not in self._foreign:
            number = self._target.parent(number)
        return None if number == ROOT else number
