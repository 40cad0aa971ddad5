"""Places of a restore: what stands where an entry goes, and what this run must not overwrite there.

Two names of an archive can be one entry in a target that is blind to case, normalizes names, or has a folder mounted
twice. So what this run made or kept is known by device and inode, not by name.
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
from cryostore.agent.restore.tree_removal import Problem, remove_tree

LOCKS = 64
CLASH = "another entry of the recovery point has this place: the target does not tell their names apart"


def name_collision() -> OSError:
    """The error of an entry whose place is taken by another entry of the same restore."""
    return OSError(errno.EEXIST, CLASH)


def status_of(parent: int, name: bytes) -> os.stat_result | None:
    """The status of an entry of a directory, None if there is none. Raises OSError."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


class CollisionGuard:
    """The places of one restore. `take` is for any thread, all else for one."""

    def __init__(
        self, target: TargetDirectories, report: Report, lock: threading.Lock, *, delete: bool, keep_claims: bool
    ) -> None:
        """`keep_claims` is for a restore that does not go through each directory at one go."""
        self._target = target
        self._report = report
        self._lock = lock
        self._delete = delete
        self._keep_claims = keep_claims
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        self._numbers: dict[int, int] = {}
        """The numbers of directories by device and inode."""
        self._rows = (array("Q", [0]), array("Q", [0]))
        """Device and inode, in the archive, of each directory."""
        self._claims: dict[int, dict[int, bytes]] = {}
        """The entries that stood in a directory and were kept or are to be replaced, each with its name."""
        self._listing: frozenset[bytes] | None = None
        self._current = ROOT
        self._shared: set[int] = set()
        self._shared_late: set[int] = set()

    # --- directories --------------------------------------------------------------------------------------------------

    def add_directory(self, number: int, row: Row, status: os.stat_result | None) -> None:
        """Note a directory that was made or found; they come in the order of their numbers."""
        if status is not None:
            self._numbers[_key(status)] = number
        for numbers, value in zip(self._rows, (row.device, row.inode), strict=True):
            if number == ROOT:
                numbers[ROOT] = value
            else:
                numbers.append(value)

    def device(self, number: int) -> int:
        """The file system of a directory, as the archive counts them."""
        return self._rows[0][number]

    def known(self, status: os.stat_result) -> int | None:
        """The number of a directory that this restore has come to by another name."""
        return self._numbers.get(_key(status))

    def share(self, number: int, row: Row, parent: int) -> bool:
        """Note a further name, in the directory `parent`, of a directory; tells whether the archive has them as two."""
        if (row.device, row.inode) == (self._rows[0][number], self._rows[1][number]):
            return False
        self._shared.add(number)
        if self._target.parent(number) != parent:
            self._shared_late.add(number)  # what was kept in it may be forgotten by now
        return True

    # --- what stands in a place ---------------------------------------------------------------------------------------

    def standing(self, number: int, name: bytes) -> os.stat_result | None:
        """What stands in an entry's place. Raises OSError."""
        if number < 0 or self._target.fresh(number):
            return None
        with self._target.at(number) as parent:
            return status_of(parent, name)

    def claim(self, number: int, name: bytes, standing: os.stat_result | None) -> None:
        """Note that what stands in a place is kept or replaced by an entry that is not a directory.

        Raises OSError if another entry of this restore has that place.
        """
        if standing is None:
            return
        if number in self._shared_late or (stat.S_ISDIR(standing.st_mode) and self.known(standing) is not None):
            raise name_collision()
        first = self._claims_in(number).setdefault(_key(standing), name)
        if first != name and self._is_one_entry(number, first, name, standing):
            raise name_collision()

    def claimed(self, number: int, standing: os.stat_result) -> bool:
        """Whether what stands in the place of a directory belongs to another entry of this restore."""
        return number in self._shared_late or _key(standing) in self._claims.get(number, {})

    def _claims_in(self, number: int) -> dict[int, bytes]:
        if number != self._current:
            if not self._keep_claims and self._current not in self._shared:
                self._claims.pop(self._current, None)
            self._current, self._listing = number, None
        return self._claims.setdefault(number, {})

    def _is_one_entry(self, number: int, first: bytes, name: bytes, standing: os.stat_result) -> bool:
        """Whether two names lead to one entry, and not to two that are links to one file."""
        if standing.st_nlink <= 1:
            return True
        if self._listing is None:
            with self._target.at(number) as parent:
                self._listing = frozenset(map(os.fsencode, os.listdir(parent)))
        return first not in self._listing or name not in self._listing

    # --- taking a place -----------------------------------------------------------------------------------------------

    def take(self, number: int, parent: int, temporary: bytes, name: bytes, standing: os.stat_result | None) -> None:
        """Rename a complete entry to its name.

        Raises OSError if that is not `standing`, which was decided on: it may be what this run has just made.
        """
        with self._locks[number % LOCKS]:
            found = status_of(parent, name)
            if found is not None and (standing is None or not os.path.samestat(found, standing)):
                raise name_collision()
            if found is not None and stat.S_ISDIR(found.st_mode):
                self._make_room(number, parent, name, found)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)

    def made(self, number: int, parent: int, name: bytes) -> None:
        """Note that an entry, which is not a directory, was made and has taken its place already. Raises OSError."""
        if not self._target.fresh(number) and (status := status_of(parent, name)) is not None:
            self._claims_in(number)[_key(status)] = name

    def _make_room(self, number: int, parent: int, name: bytes, found: os.stat_result) -> None:
        """Remove a directory in whose place something else goes: an empty one, or any if deleting was asked for."""
        if self.known(found) is not None:
            raise name_collision()
        if not self._delete:
            os.rmdir(name, dir_fd=parent)
            return
        removed = remove_tree(parent, name, self.problem_below(number))
        with self._lock:
            self._report.deleted += removed

    def problem_below(self, number: int) -> Problem:
        """What makes an issue of an entry that could not be removed from a directory."""
        above = self._target.path(number)

        def tell(path: bytes, reason: str) -> None:
            with self._lock:
                self._report.issue(above + b"/" + path if above else path, reason)

        return tell


def _key(status: os.stat_result) -> int:
    return status.st_dev << 64 | status.st_ino
