"""What the base of a run knows: the blocks of its catalog in order, where small files lie, which chunks there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cryostore.agent.archive import Archive, digest_of
from cryostore.agent.block import Block, Extra, ExtraKind, Kind, order_key
from cryostore.agent.content import Read
from cryostore.agent.digest_table import DigestTable
from cryostore.agent.entry import CONTENT, NO_DIGEST, UNTRUSTED_CTIME, Content, Row
from cryostore.agent.header import ContentObject
from cryostore.agent.pieces import ChunkPages
from cryostore.core.limits import MIB
from cryostore.core.memory import unfilled

OBJECTS_MAX = 64
DEAD_BYTES_MIN = 4 * MIB
MERGED_BYTES_MAX = 64 * MIB


class Known(NamedTuple):
    """An entry as the base has it."""

    row: Row
    content: Content
    extras: list[Extra]


class Base:
    """The archive that a run starts from. Directories must be asked for in the order of the catalog."""

    def __init__(self, archive: Archive, *, same_root: bool, damaged: frozenset[int] = frozenset()) -> None:
        """What is in the content objects `damaged` is to be stored anew, too."""
        self.archive = archive
        self.retired = retired(archive.header.objects) | damaged
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
        """The highest number that a content object has."""
        return max((each.number for each in self.objects), default=0)

    def summaries(self) -> dict[str, bytes]:
        """The checksum of each object of the archive."""
        return self.archive.summaries()

    def entries(self, path: bytes, blocks: list[Block]) -> Entries:  # noqa: ARG002 - for a base without blocks
        """The entries of a directory, of which `take` gave the blocks."""
        return Entries(blocks, self.retired)

    def take(self, kind: Kind, path: bytes) -> list[Block]:
        """The blocks of a directory; none if the base does not have it."""
        wanted = (kind, order_key(path))
        found = []
        while self._next is not None and self._next_key <= wanted:
            if self._next_key == wanted:
                found.append(self._next)
            self._advance()
        return found

    def usable(self, block: Block) -> bool:
        """Whether a block may be taken over as it is: nothing in it lies in an object that is to go."""
        if not self.retired or not block.contents:
            return True
        return self.retired.isdisjoint(memoryview(block.contents).cast("I")[:: CONTENT.size // 4])

    def holds(self, content: Content, size: int, read: Read) -> bool:
        """Whether the chunks from `content` on are, one after the other, the next `size` bytes that `read` gives.

        What `read` raises is raised here.
        """
        left = size
        for chunk in self._pages.from_chunk(content.object_number, content.chunk):
            data = memoryview(unfilled(chunk.length))
            if chunk.length > left or read(data) != chunk.length or self.archive.identity(data) != digest_of(chunk):
                return False
            left -= chunk.length
            if not left:
                return True
        return False

    def load_small_files(self, table: DigestTable) -> None:
        """Add where each small file of the base lies."""
        for block in self.archive.raw_blocks():
            for number, chunk, offset, digest in CONTENT.iter_unpack(block.contents):
                if digest != NO_DIGEST and number not in self.retired:
                    table.add(digest, number, chunk, offset)

    def load_chunks(self, table: DigestTable) -> None:
        """Add the digest of each chunk of the base."""
        for chunk in self.archive.stored_chunks():
            table.add(digest_of(chunk))


class Entries:
    """The entries of a directory of the base, by name."""

    def __init__(self, blocks: list[Block], retired: frozenset[int]) -> None:
        self._retired = retired
        self._places = {name: (block, index) for block in blocks for index, name in enumerate(block.name_list())}
        self._extras: dict[int, dict[int, list[Extra]]] = {}

    def unchanged(self, name: bytes, row: Row) -> Known | None:
        """What the base has under this name, if neither bytes nor attributes can have changed since."""
        if (place := self._places.get(name)) is None:
            return None
        block, index = place
        old = Row.unpack(block.rows, index)
        if old.ctime_ns == UNTRUSTED_CTIME or identity_of(old) != identity_of(row):
            return None
        content = Content.unpack(block.contents, index)
        if content.object_number in self._retired:
            return None
        if id(block) not in self._extras:
            self._extras[id(block)] = block.extras_of()
        return Known(old, content, self._extras[id(block)].get(index, []))

    def alike(self, name: bytes, row: Row) -> Content | None:
        """Where a file lies that looks as it did, but was too young to be trusted then. Not if it had holes."""
        if (place := self._places.get(name)) is None:
            return None
        block, index = place
        old = Row.unpack(block.rows, index)
        content = Content.unpack(block.contents, index)
        looks = identity_of(old._replace(ctime_ns=row.ctime_ns)) == identity_of(row)
        if not looks or not content.object_number or content.offset or content.object_number in self._retired:
            return None
        extras = block.extras_of().get(index, [])
        return None if any(extra.kind == ExtraKind.HOLES for extra in extras) else content

    def digest(self, name: bytes) -> bytes:
        """The digest of a small file's content; zeros if the base has none."""
        if (place := self._places.get(name)) is None:
            return NO_DIGEST
        block, index = place
        return Content.unpack(block.contents, index).digest

    def __contains__(self, name: bytes) -> bool:
        return name in self._places


def identity_of(row: Row) -> tuple[int, int, int, int, int]:
    """What tells by stat alone that a file is the one it was."""
    return row.mode, row.size, row.mtime_ns, row.ctime_ns, row.inode


def retired(objects: list[ContentObject]) -> frozenset[int]:
    """The content objects whose files are to be stored anew: mostly dead ones, small ones if there are too many."""
    going = {
        each.number
        for each in objects
        if each.content_bytes - each.live_bytes > DEAD_BYTES_MIN and 2 * each.live_bytes < each.content_bytes
    }
    left = sorted((each for each in objects if each.number not in going), key=lambda each: each.live_bytes)
    merged_bytes = 0
    for each in left[: max(len(left) - OBJECTS_MAX // 2, 0)] if len(left) > OBJECTS_MAX else []:
        merged_bytes += each.live_bytes
        if merged_bytes > MERGED_BYTES_MAX:
            break
        going.add(each.number)
    return frozenset(going)
