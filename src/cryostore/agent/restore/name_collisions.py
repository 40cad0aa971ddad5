"""Guard against name collisions: two entries of an archive whose names are the same entry in the target.

That happens if the target ignores case, normalizes Unicode, or has a folder mounted twice. Therefore entries that this
run created or kept are known by device and inode, not by name, and no entry is renamed over them.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from array import array

from cryostore.agent.entry import Row
from cryostore.agent.report import Report
from cryostore.agent.restore.target_directories import ROOT, TargetDirectories
from cryostore.agent.restore.tree_removal import ReportProblem, remove_tree

LOCKS = 64
CLASH = "another entry of the recovery point has this name: the target does not distinguish the two names"


def name_collision() -> OSError:
    """Return the error of an entry whose name belongs to another entry of the same restore."""
    return OSError(errno.EEXIST, CLASH)


def status_of(parent: int, name: bytes) -> os.stat_result | None:
    """Return the status of an entry of a directory, None if there is none. Raises OSError."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


class CollisionGuard:
    """The entries of one restore in the target. `rename_into_place` is thread safe; all else is for one thread."""

    def __init__(
        self, target: TargetDirectories, report: Report, lock: threading.Lock, *, delete: bool, keep_occupied: bool
    ) -> None:
        """`keep_occupied` is for a restore that does not finish each directory before the next."""
        self._target = target
        self._report = report
        self._lock = lock
        self._delete = delete
        self._keep_occupied = keep_occupied
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        self._numbers: dict[int, int] = {}
        """The numbers of directories by device and inode."""
        self._rows = (array("Q", [0]), array("Q", [0]))
        """Device and inode of each directory in the archive."""
        self._occupied: dict[int, dict[int, bytes]] = {}
        """By directory: the existing entries that are kept or will be replaced, each with its name."""
        self._listing: frozenset[bytes] | None = None
        self._current = ROOT
        self._shared: set[int] = set()
        self._shared_late: set[int] = set()

    # --- directories --------------------------------------------------------------------------------------------------

    def add_directory(self, number: int, row: Row, status: os.stat_result | None) -> None:
        """Note a directory that was created or found, in the order of the numbers."""
        if status is not None:
            self._numbers[_key(status)] = number
        for numbers, value in zip(self._rows, (row.device, row.inode), strict=True):
            if number == ROOT:
                numbers[ROOT] = value
            else:
                numbers.append(value)

    def archived_device(self, number: int) -> int:
        """Return the device number that the archive has for a directory."""
        return self._rows[0][number]

    def directory_number(self, status: os.stat_result) -> int | None:
        """Return the number of a directory that this restore has reached before, None if it has not."""
        return self._numbers.get(_key(status))

    def note_alias(self, number: int, row: Row, parent: int) -> bool:
        """Note another name, in `parent`, of a directory; return whether the archive has two directories there."""
        if (row.device, row.inode) == (self._rows[0][number], self._rows[1][number]):
            return False
        self._shared.add(number)
        if self._target.parent(number) != parent:
            self._shared_late.add(number)  # its occupied entries may be dropped by now
        return True

    # --- existing entries ---------------------------------------------------------------------------------------------

    def existing(self, number: int, name: bytes) -> os.stat_result | None:
        """Return the status of the existing entry under a name, None if there is none. Raises OSError."""
        if number < 0 or self._target.is_created(number):
            return None
        with self._target.at(number) as parent:
            return status_of(parent, name)

    def occupy(self, number: int, name: bytes, existing: os.stat_result | None) -> None:
        """Note that an entry which is not a directory keeps or replaces the existing entry.

        Raises OSError if the existing entry belongs to another entry of this restore.
        """
        if existing is None:
            return
        if number in self._shared_late or (
            stat.S_ISDIR(existing.st_mode) and self.directory_number(existing) is not None
        ):
            raise name_collision()
        first = self._occupied_in(number).setdefault(_key(existing), name)
        if first != name and self._is_one_entry(number, first, name, existing):
            raise name_collision()

    def is_occupied(self, number: int, existing: os.stat_result) -> bool:
        """Return whether the existing entry belongs to another entry of this restore."""
        return number in self._shared_late or _key(existing) in self._occupied.get(number, {})

    def _occupied_in(self, number: int) -> dict[int, bytes]:
        if number != self._current:
            if not self._keep_occupied and self._current not in self._shared:
                self._occupied.pop(self._current, None)
            self._current, self._listing = number, None
        return self._occupied.setdefault(number, {})

    def _is_one_entry(self, number: int, first: bytes, name: bytes, existing: os.stat_result) -> bool:
        """Return whether two names lead to one directory entry, and not to two links to one file."""
        if existing.st_nlink <= 1:
            return True
        if self._listing is None:
            with self._target.at(number) as parent:
                self._listing = frozenset(map(os.fsencode, os.listdir(parent)))
        return first not in self._listing or name not in self._listing

    # --- renaming into place ------------------------------------------------------------------------------------------

    def rename_into_place(
        self, number: int, parent: int, temporary: bytes, name: bytes, existing: os.stat_result | None
    ) -> None:
        """Rename a complete entry to its final name.

        Raises OSError if the name leads to another entry than `existing`, for which the replacement was decided: it may
        be one that this run has just created.
        """
        with self._locks[number % LOCKS]:
            found = status_of(parent, name)
            if found is not None and (existing is None or not os.path.samestat(found, existing)):
                raise name_collision()
            if found is not None and stat.S_ISDIR(found.st_mode):
                self._make_room(number, parent, name, found)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)

    def note_created(self, number: int, parent: int, name: bytes) -> None:
        """Note that an entry which is not a directory was created and renamed into place. Raises OSError."""
        if not self._target.is_created(number) and (status := status_of(parent, name)) is not None:
            self._occupied_in(number)[_key(status)] = name

    def _make_room(self, number: int, parent: int, name: bytes, found: os.stat_result) -> None:
        """Remove a directory that another entry replaces: only an empty one, unless `--delete` was given."""
        if self.directory_number(found) is not None:
            raise name_collision()
        if not self._delete:
            os.rmdir(name, dir_fd=parent)
            return
        removed = remove_tree(parent, name, self.issue_reporter(number))
        with self._lock:
            self._report.deleted += removed

    def issue_reporter(self, number: int) -> ReportProblem:
        """Return a function that makes an issue of an entry that could not be removed from a directory."""
        above = self._target.path(number)

        def report(path: bytes, reason: str) -> None:
            with self._lock:
                self._report.issue(above + b"/" + path if above else path, reason)

        return report


def _key(status: os.stat_result) -> int:
    return status.st_dev << 64 | status.st_ino
