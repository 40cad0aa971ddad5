"""Incremental base of a run: the archive whose unchanged parts the new one inherits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cryostore.agent.archive.chunks import ChunkPages
from cryostore.agent.archive.reader import Archive, digest_of
from cryostore.agent.backup.dead_bytes import objects_to_rewrite, sparse_chunks
from cryostore.agent.block import Block, Extra, ExtraKind, Kind, order_key
from cryostore.agent.entry import CONTENT, NO_DIGEST, UNTRUSTED_CTIME, Content, Row
from cryostore.agent.header import ContentObject
from cryostore.agent.upload.content import Read
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.core.process_resources import unfilled

MOVED_DIGEST = b"\xff" * len(NO_DIGEST)
"""Digest of a small file in a sparse chunk: equal to no other, so that the file is stored at a new place."""


class ArchivedEntry(NamedTuple):
    """An entry as an archive has it, without its name."""

    row: Row
    content: Content
    extras: list[Extra]


class ArchiveBase:
    """The base of a run that can read it. Directories must be asked for in the order of the listing."""

    def __init__(self, archive: Archive, *, same_root: bool, damaged: frozenset[int] = frozenset()) -> None:
        """The store has lost bytes of the content objects `damaged`: their files are to be stored again as well."""
        self.archive = archive
        self.to_rewrite = objects_to_rewrite(archive.header.objects) | damaged
        self._damaged = damaged
        self._sparse = sparse_chunks(archive, self.to_rewrite)
        self._sparse_objects = frozenset(number for number, _ in self._sparse)
        self._blocks: Iterator[Block] = archive.raw_blocks() if same_root else iter(())
        self._next: Block | None = None
        self._next_key = (0, b"")
        self._pages = ChunkPages(archive)
        self._advance()

    def _advance(self) -> None:
        self._next = next(self._blocks, None)
        if self._next is not None:
            self._next_key = (self._next.kind, order_key(self._next.path))

    @property
    def objects(self) -> list[ContentObject]:
        """The content objects of the archive."""
        return self.archive.header.objects

    @property
    def last_number(self) -> int:
        """The highest number of a content object."""
        return max((each.number for each in self.objects), default=0)

    def object_checksums(self) -> dict[str, bytes]:
        """Return the checksum of each object of the archive, by name."""
        return self.archive.object_checksums()

    def entries(self, path: bytes, blocks: list[Block]) -> BaseEntries:  # noqa: ARG002 - for a base without blocks
        """Return the entries of a directory, whose `blocks` come from `take`."""
        return BaseEntries(blocks, self.to_rewrite, self._sparse, self._damaged)

    def take(self, kind: Kind, path: bytes) -> list[Block]:
        """Return the blocks of a directory; none if the base does not have it."""
        wanted = (kind, order_key(path))
        found = []
        while self._next is not None and self._next_key <= wanted:
            if self._next_key == wanted:
                found.append(self._next)
            self._advance()
        return found

    def usable(self, block: Block) -> bool:
        """Return whether a block may be inherited as it is: no content in it is to be stored again."""
        if not block.contents or not (self.to_rewrite or self._sparse):
            return True
        words = memoryview(block.contents).cast("I")
        numbers = words[:: CONTENT.size // 4]
        if not self.to_rewrite.isdisjoint(numbers):
            return False
        if self._sparse_objects.isdisjoint(numbers):
            return True
        return self._sparse.isdisjoint(zip(numbers, words[1 :: CONTENT.size // 4], strict=True))

    def holds(self, content: Content, size: int, read: Read) -> bool:
        """Return whether the chunks from `content` on equal, one after the other, the next `size` bytes of `read`.

        Passes on the errors of `read`.
        """
        left = size
        for chunk in self._pages.from_chunk(content.object_number, content.chunk):
            data = memoryview(unfilled(chunk.length))
            if chunk.length > left or read(data) != chunk.length or self.archive.chunk_id(data) != digest_of(chunk):
                return False
            left -= chunk.length
            if not left:
                return True
        return False

    def load_small_files(self, table: DigestTable) -> None:
        """Add the place of each small file of the base, except those that are to be stored again."""
        for block in self.archive.raw_blocks():
            for number, chunk, offset, digest in CONTENT.iter_unpack(block.contents):
                if digest != NO_DIGEST and number not in self.to_rewrite and (number, chunk) not in self._sparse:
                    table.add(digest, number, chunk, offset)

    def load_chunks(self, table: DigestTable) -> None:
        """Add the digest of each stored chunk of the base."""
        for chunk in self.archive.stored_chunks():
            table.add(digest_of(chunk))


class BaseEntries:
    """The entries of a directory of the base, by name."""

    def __init__(
        self,
        blocks: list[Block],
        to_rewrite: frozenset[int],
        sparse: frozenset[tuple[int, int]] = frozenset(),
        damaged: frozenset[int] = frozenset(),
    ) -> None:
        self._to_rewrite = to_rewrite
        self._sparse = sparse
        self._damaged = damaged
        self._places = {name: (block, index) for block in blocks for index, name in enumerate(block.name_list())}
        self._extras: dict[int, dict[int, list[Extra]]] = {}

    def unchanged(self, name: bytes, row: Row) -> ArchivedEntry | None:
        """Return the entry of this name if it has not changed since and its content may stay where it is."""
        if (known := self.held(name, row)) is None:
            return None
        number, chunk = known.content.object_number, known.content.chunk
        return None if number in self._to_rewrite or (number, chunk) in self._sparse else known

    def held(self, name: bytes, row: Row) -> ArchivedEntry | None:
        """Return the entry of this name if neither bytes nor attributes can have changed since.

        Its content may be one that is to be stored again. None if the store has lost bytes of the content object.
        """
        if (place := self._places.get(name)) is None:
            return None
        block, index = place
        old = Row.unpack(block.rows, index)
        if old.ctime_ns == UNTRUSTED_CTIME or stat_identity(old) != stat_identity(row):
            return None
        content = Content.unpack(block.contents, index)
        if content.object_number in self._damaged:
            return None
        if id(block) not in self._extras:
            self._extras[id(block)] = block.extras_of()
        return ArchivedEntry(old, content, self._extras[id(block)].get(index, []))

    def alike(self, name: bytes, row: Row) -> Content | None:
        """Return the content of a file that looks unchanged but was too young to be trusted; None if it had holes."""
        if (place := self._places.get(name)) is None:
            return None
        block, index = place
        old = Row.unpack(block.rows, index)
        content = Content.unpack(block.contents, index)
        looks = stat_identity(old._replace(ctime_ns=row.ctime_ns)) == stat_identity(row)
        if not looks or not content.object_number or content.offset or content.object_number in self._to_rewrite:
            return None
        extras = block.extras_of().get(index, [])
        return None if any(extra.kind == ExtraKind.HOLES for extra in extras) else content

    def digest(self, name: bytes) -> bytes:
        """Return the digest of a small file; zeros if the base has none, MOVED_DIGEST if the file is to be moved."""
        if (place := self._places.get(name)) is None:
            return NO_DIGEST
        block, index = place
        content = Content.unpack(block.contents, index)
        return MOVED_DIGEST if (content.object_number, content.chunk) in self._sparse else content.digest

    def __contains__(self, name: bytes) -> bool:
        return name in self._places


def stat_identity(row: Row) -> tuple[int, int, int, int, int]:
    """Return the stat fields that show together that a file has not changed."""
    return row.mode, row.size, row.mtime_ns, row.ctime_ns, row.inode
