"""What the base of a run knows: the blocks of its catalog in order, where small files lie, which chunks there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from cryostore.agent.archive.chunk_pages import ChunkPages
from cryostore.agent.archive.reader import Archive, digest_of
from cryostore.agent.block import Block, Extra, ExtraKind, Kind, order_key
from cryostore.agent.entry import CONTENT, NO_DIGEST, ROW, UNTRUSTED_CTIME, Content, Row
from cryostore.agent.header import ContentObject, content_name
from cryostore.agent.upload.content import Read
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.core.limits import KIB, MIB
from cryostore.core.memory import unfilled

OBJECTS_MAX = 64
DEAD_BYTES_MIN = 4 * MIB
MERGED_BYTES_MAX = 64 * MIB
SIZE = Row._fields.index("size")
SPARSE_DEAD_BYTES_MIN = 512 * KIB
SPARSE_DEAD_SHARE = 8
"""Sparse chunks are looked for where more than this, and more than one byte in so many of an object, is dead."""
MOVED_SHARE = 16
MOVED_BYTES_MIN = 2 * MIB
"""A run stores files of sparse chunks anew up to one byte in so many of all files, or up to so many bytes."""
MOVED_DIGEST = b"\xff" * len(NO_DIGEST)
"""For a file that lay in a sparse chunk: as if it had changed, so that it need not share a chunk again."""


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
        self._damaged = damaged
        self._sparse = sparse_chunks(archive, self.retired)
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
        """The highest number that a content object has."""
        return max((each.number for each in self.objects), default=0)

    def object_checksums(self) -> dict[str, bytes]:
        """The checksum of each object of the archive."""
        return self.archive.object_checksums()

    def entries(self, path: bytes, blocks: list[Block]) -> Entries:  # noqa: ARG002 - for a base without blocks
        """The entries of a directory, of which `take` gave the blocks."""
        return Entries(blocks, self.retired, self._sparse, self._damaged)

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
        """Whether a block may be taken over as it is: nothing in it lies in an object or a chunk that is to go."""
        if not block.contents or not (self.retired or self._sparse):
            return True
        words = memoryview(block.contents).cast("I")
        numbers = words[:: CONTENT.size // 4]
        if not self.retired.isdisjoint(numbers):
            return False
        if self._sparse_objects.isdisjoint(numbers):
            return True
        return self._sparse.isdisjoint(zip(numbers, words[1 :: CONTENT.size // 4], strict=True))

    def holds(self, content: Content, size: int, read: Read) -> bool:
        """Whether the chunks from `content` on are, one after the other, the next `size` bytes that `read` gives.

        What `read` raises is raised here.
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
        """Add where each small file of the base lies."""
        for block in self.archive.raw_blocks():
            for number, chunk, offset, digest in CONTENT.iter_unpack(block.contents):
                if digest != NO_DIGEST and number not in self.retired and (number, chunk) not in self._sparse:
                    table.add(digest, number, chunk, offset)

    def load_chunks(self, table: DigestTable) -> None:
        """Add the digest of each chunk of the base."""
        for chunk in self.archive.stored_chunks():
            table.add(digest_of(chunk))


class Entries:
    """The entries of a directory of the base, by name."""

    def __init__(
        self,
        blocks: list[Block],
        retired: frozenset[int],
        sparse: frozenset[tuple[int, int]] = frozenset(),
        damaged: frozenset[int] = frozenset(),
    ) -> None:
        self._retired = retired
        self._sparse = sparse
        self._damaged = damaged
        self._places = {name: (block, index) for block in blocks for index, name in enumerate(block.name_list())}
        self._extras: dict[int, dict[int, list[Extra]]] = {}

    def unchanged(self, name: bytes, row: Row) -> Known | None:
        """The entry of the base under this name, if nothing changed since and its content may stay where it is."""
        if (known := self.held(name, row)) is None:
            return None
        number, chunk = known.content.object_number, known.content.chunk
        return None if number in self._retired or (number, chunk) in self._sparse else known

    def held(self, name: bytes, row: Row) -> Known | None:
        """The entry of the base under this name, if neither bytes nor attributes can have changed since.

        Its content may be about to be stored anew. None if the store has lost bytes of the content object.
        """
        if (place := self._places.get(name)) is None:
            return None
        block, index = place
        old = Row.unpack(block.rows, index)
        if old.ctime_ns == UNTRUSTED_CTIME or identity_of(old) != identity_of(row):
            return None
        content = Content.unpack(block.contents, index)
        if content.object_number in self._damaged:
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
        """The digest of a small file's content; zeros if the base has none, MOVED_DIGEST if it is to lie elsewhere."""
        if (place := self._places.get(name)) is None:
            return NO_DIGEST
        block, index = place
        content = Content.unpack(block.contents, index)
        return MOVED_DIGEST if (content.object_number, content.chunk) in self._sparse else content.digest

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


def sparse_chunks(archive: Archive, retired: frozenset[int]) -> frozenset[tuple[int, int]]:
    """The chunks, by object and index, whose small files are to be stored anew: less than half of each is needed.

    The sparsest come first, as far as the bound for one run goes. A file that lies in a chunk twice counts twice.
    """
    objects = archive.header.objects
    worn = {
        each.number
        for each in objects
        if each.number not in retired
        and each.content_bytes - each.live_bytes > max(SPARSE_DEAD_BYTES_MIN, each.content_bytes // SPARSE_DEAD_SHARE)
    }
    if not worn:
        return frozenset()
    live_bytes = _small_bytes(archive, worn)
    found = []
    for number in sorted(worn):
        for chunk in archive.object_chunks(content_name(number)):
            needed = live_bytes[number, chunk.index]
            if 0 < 2 * needed < chunk.length:
                found.append((needed / chunk.length, needed, (number, chunk.index)))
    sparse: set[tuple[int, int]] = set()
    left = max(sum(each.live_bytes for each in objects) // MOVED_SHARE, MOVED_BYTES_MIN)
    for _, needed, place in sorted(found):
        if needed <= left:
            left -= needed
            sparse.add(place)
    return frozenset(sparse)


def _small_bytes(archive: Archive, numbers: set[int]) -> Counter[tuple[int, int]]:
    """How many bytes of small files begin in each chunk of some objects."""
    found: Counter[tuple[int, int]] = Counter()
    for block in archive.raw_blocks():
        if not numbers.isdisjoint(memoryview(block.contents).cast("I")[:: CONTENT.size // 4]):
            rows = ROW.iter_unpack(block.rows)
            for (number, chunk, _, digest), row in zip(CONTENT.iter_unpack(block.contents), rows, strict=True):
                if number in numbers and digest != NO_DIGEST:
                    found[number, chunk] += row[SIZE]
    return found
