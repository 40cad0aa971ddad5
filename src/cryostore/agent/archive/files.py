"""The files of one archive: found by path, and opened for reading, whatever kind of archive it is."""

from __future__ import annotations

from cryostore.agent.archive.chunk_cache import ChunkCache
from cryostore.agent.archive.disk_blocks import DiskFile
from cryostore.agent.archive.listing import Entry, path_in
from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.reading import ContentFile, HeldPages, Readable
from cryostore.agent.archive.tree import Tree
from cryostore.agent.errors import shown
from cryostore.agent.header import DISK, FILESET
from cryostore.core.errors import ConfigurationError


class Files:
    """The tree of an archive and what is in its files. Thread safe."""

    def __init__(self, archive: Archive, cache: ChunkCache) -> None:
        self.archive = archive
        self.tree = Tree(archive)
        self._cache = cache
        self._pages = HeldPages(archive)

    def open(self, entry: Entry) -> Readable:
        """The content of a regular file."""
        if self.archive.header.kind == DISK:
            return DiskFile(self.archive, self._cache)
        return ContentFile(self.archive, self._pages, self._cache, entry)

    def only(self) -> Entry:
        """The one file of an archive of a stream or a disk. Raises ConfigurationError for a tree."""
        if self.archive.header.kind != FILESET:
            for block in self.tree.directory(b""):
                if block.entries == 1 and (entry := self.tree.find(block.name_list()[0])) is not None:
                    return entry
        raise ConfigurationError("the recovery point is a tree of files", hint="name one of them: POINT:PATH")

    def file(self, text: str) -> Entry:
        """The regular file that a user names; without a name, the only one. Raises ConfigurationError."""
        if not text:
            return self.only()
        path = path_in(self.archive, text)
        entry = self.tree.existing(path)
        if not entry.row.is_file:
            raise ConfigurationError(f"{shown(path)} is no regular file")
        return entry
