"""Surplus of restored folders: entries that the recovery point does not have, which `--delete` removes.

Nothing is removed that this run made or kept, by whatever name the target lists it, nor anything on a file system that
is mounted in the target and was not when the backup was made.
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

Identity = tuple[int, int]


class ExtraneousEntries:
    """Removes what is not wanted from directories that stood in the target."""

    def __init__(
        self, target: TargetDirectories, places: CollisionGuard, wants: Callable[[bytes, bool], bool], *, dry_run: bool
    ) -> None:
        """`wants` says of a path below the target's root whether the restore is about it at all."""
        self._target = target
        self._places = places
        self._wants = wants
        self._dry_run = dry_run
        self._names: dict[int, set[bytes]] = {}
        self._foreign: set[int] = set()
        """Directories on which a file system is mounted that the archive does not know."""

    def keep(self, number: int, names: list[bytes]) -> None:
        """Note the names that the archive has in a directory."""
        if not self._target.fresh(number):
            self._names.setdefault(number, set()).update(names)

    def directories(self) -> list[int]:
        """The directories to look through, those in others later."""
        return list(self._names)

    def remove(self, number: int, on_entry: Callable[[bytes], None]) -> int:
        """Remove the surplus of a directory; return how many entries that was. Raises OSError."""
        interrupts.check()
        wanted = self._names.pop(number)
        removed = 0
        path = self._target.path(number)
        tell = self._places.problem_below(number)
        mount = self._foreign_mount(number)
        with self._target.at(number) as parent:
            listed = {os.fsencode(entry) for entry in os.listdir(parent)}
            kept = self._identities(parent, wanted - listed) if listed - wanted else set()
            for name in sorted(listed - wanted):
                found = status_of(parent, name)
                if found is None or (found.st_dev, found.st_ino) in kept:
                    continue
                if not self._wants(join(path, name), stat.S_ISDIR(found.st_mode)):
                    continue
                if mount is not None:
                    self._places.problem_below(ROOT)(self._target.path(mount) or b".", MOUNTED)
                    break
                gone = remove_tree(parent, name, tell, spares=self._spares(path), dry_run=self._dry_run)
                if gone:
                    on_entry(join(path, name))
                removed += gone
        return removed

    def _spares(self, above: bytes) -> Callable[[bytes, bool], bool]:
        return lambda path, is_directory: not self._wants(join(above, path), is_directory)

    def _identities(self, parent: int, names: set[bytes]) -> set[Identity]:
        """What names lead to that the directory lists by others."""
        found = (status_of(parent, name) for name in names)
        return {(status.st_dev, status.st_ino) for status in found if status is not None}

    def _foreign_mount(self, number: int) -> int | None:
        """The directory at or above this one on which a file system is mounted that the archive does not know."""
        if number == ROOT:
            return None
        parent = self._target.parent(number)
        with self._target.at(number) as here, self._target.at(parent) as above:
            if Mount.of(here) != Mount.of(above) and self._places.device(number) == self._places.device(parent):
                self._foreign.add(number)
        while number != ROOT and number not in self._foreign:
            number = self._target.parent(number)
        return None if number == ROOT else number
