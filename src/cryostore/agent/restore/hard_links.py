"""Files with several names: the first name that a restore comes to gets the content, the others are linked to it.

So are symlinks, fifos and devices: they have no content, and are there at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from cryostore.agent.entry import Row
from cryostore.agent.restore.file_writer import RestoredFile


@dataclass(frozen=True, slots=True)
class FirstName:
    """Where the first name of a file is. `file` is it as long as it has yet to be written.

    `made` means that this restore makes it: what was there before it is something else.
    """

    directory: int
    name: bytes
    file: RestoredFile | None
    made: bool


@dataclass(frozen=True, slots=True)
class FurtherName:
    """A further name that is to be one of the same file."""

    directory: int
    name: bytes
    path: bytes
    first: FirstName
    standing: os.stat_result | None
    """What stood in its place."""


class HardLinks:
    """The names of files that have several."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], FirstName] = {}
        self._others: list[FurtherName] = []
        self._claimed: dict[tuple[int, int], tuple[int, int]] = {}

    def add_first(self, row: Row, directory: int, name: bytes, file: RestoredFile | None = None, *, made: bool) -> None:
        """Note a file that this restore makes, or that stands in its place already."""
        if row.links > 1:
            self._first[row.device, row.inode] = FirstName(directory, name, file, made)

    def has_first(self, row: Row) -> bool:
        """Whether this is a further name of a file that was noted."""
        return row.links > 1 and (row.device, row.inode) in self._first

    def add_other(self, row: Row, directory: int, name: bytes, path: bytes, standing: os.stat_result | None) -> None:
        """Note a further name."""
        self._others.append(FurtherName(directory, name, path, self._first[row.device, row.inode], standing))

    def others(self) -> Iterator[FurtherName]:
        """The further names, in the order of the archive."""
        yield from self._others

    def parts(self, row: Row, standing: os.stat_result) -> bool:
        """Whether what stands in the place of a file has a name that is no name of that file.

        Then it must be replaced though its content may be right: what is done to it would be done to the other name.
        """
        if standing.st_nlink > max(row.links, 1):
            return True
        if row.links <= 1:
            return False
        link = (row.device, row.inode)
        return self._claimed.setdefault((standing.st_dev, standing.st_ino), link) != link
