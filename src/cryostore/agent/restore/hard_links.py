"""Hard links of a restore: the first name of a file gets the content, and further names are linked to it.

The same holds for symlinks, FIFOs and devices, which have no content and exist at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from cryostore.agent.entry import Row
from cryostore.agent.restore.file_writer import RestoredFile


@dataclass(frozen=True, slots=True)
class FirstName:
    """The first restored name of a file with several names. `file` is set as long as the file is not complete.

    `made` means that this restore creates it: an entry that existed under this name is another file.
    """

    directory: int
    name: bytes
    file: RestoredFile | None
    made: bool


@dataclass(frozen=True, slots=True)
class FurtherName:
    """A further name of the same file."""

    directory: int
    name: bytes
    path: bytes
    first: FirstName
    existing: os.stat_result | None
    """The entry that existed under this name."""


class HardLinks:
    """The names of files that have several."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], FirstName] = {}
        self._further: list[FurtherName] = []
        self._link_of_existing: dict[tuple[int, int], tuple[int, int]] = {}

    def add_first(self, row: Row, directory: int, name: bytes, file: RestoredFile | None = None, *, made: bool) -> None:
        """Note a file that this restore creates, or keeps because it exists already."""
        if row.links > 1:
            self._first[row.device, row.inode] = FirstName(directory, name, file, made)

    def has_first(self, row: Row) -> bool:
        """Return whether this entry is a further name of a noted file."""
        return row.links > 1 and (row.device, row.inode) in self._first

    def add_further(self, row: Row, directory: int, name: bytes, path: bytes, existing: os.stat_result | None) -> None:
        """Note a further name."""
        self._further.append(FurtherName(directory, name, path, self._first[row.device, row.inode], existing))

    def further(self) -> Iterator[FurtherName]:
        """Return the further names in archive order."""
        yield from self._further

    def must_replace(self, row: Row, existing: os.stat_result) -> bool:
        """Return whether an existing entry has a name that is not a name of this file.

        Then it must be replaced even if its content is right: a change would also affect the other name.
        """
        if existing.st_nlink > max(row.links, 1):
            return True
        if row.links <= 1:
            return False
        link = (row.device, row.inode)
        return self._link_of_existing.setdefault((existing.st_dev, existing.st_ino), link) != link
