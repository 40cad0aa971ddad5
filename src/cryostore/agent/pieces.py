"""Which chunks a set of files needs, in the order in which they lie, each with all that is to be taken from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

from cryostore.agent.archive import Archive
from cryostore.agent.entry import Content
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.model.restores import Chunk

PAGE_CHUNKS = 100


class Wanted(Protocol):
    """What needs bytes of the content: `data_bytes` of them, from `content` on."""

    @property
    def content(self) -> Content:
        """Where its bytes begin."""

    @property
    def data_bytes(self) -> int:
        """How many they are; more than none."""


Want = TypeVar("Want", bound=Wanted)


class Piece(NamedTuple, Generic[Want]):
    """`length` bytes at `chunk_offset` of a chunk, which are those at `data_offset` of the file's bytes."""

    wanted: Want
    chunk_offset: int
    length: int
    data_offset: int


class ChunkPages:
    """Pages of chunk lists by number, with the tokens that lead to them kept."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._tokens: dict[int, list[str | None]] = {}

    def from_chunk(self, number: int, index: int) -> Iterator[Chunk]:
        """The chunks of a content object from an index on."""
        tokens = self._tokens.setdefault(number, [None])
        page = min(index // PAGE_CHUNKS, len(tokens) - 1)
        for chunks, token in self._archive.content_pages(number, tokens[page]):
            page += 1
            if page == len(tokens) and token is not None:
                tokens.append(token)
            for chunk in chunks:
                if chunk.index >= index:
                    yield chunk


def chunks_of(pages: ChunkPages, wanted: Sequence[Want]) -> Iterator[tuple[Chunk, list[Piece[Want]]]]:
    """Each chunk that is needed, once, with its pieces. Raises ArchiveDamagedError if a file's bytes are not there."""
    by_object: dict[int, list[Want]] = {}
    for want in wanted:
        by_object.setdefault(want.content.object_number, []).append(want)
    for number in sorted(by_object):
        yield from _of_object(pages, number, sorted(by_object[number], key=attrgetter("content")))


def _of_object(pages: ChunkPages, number: int, wanted: list[Want]) -> Iterator[tuple[Chunk, list[Piece[Want]]]]:
    begun: list[tuple[Want, int]] = []
    place = 0
    chunks: Iterator[Chunk] = iter(())
    index = -1
    while place < len(wanted) or begun:
        if (not begun and wanted[place].content.chunk > index + PAGE_CHUNKS) or index < 0:
            chunks = pages.from_chunk(number, wanted[place].content.chunk)
        chunk = next(chunks, None)
        if chunk is None or (place < len(wanted) and chunk.index > wanted[place].content.chunk):
            raise ArchiveDamagedError(f"content object {number} lacks chunks that its files need")
        index = chunk.index
        pieces = [_piece(chunk, want, done) for want, done in begun]
        while place < len(wanted) and wanted[place].content.chunk == index:
            pieces.append(_piece(chunk, wanted[place], 0))
            place += 1
        begun = [
            (piece.wanted, piece.data_offset + piece.length)
            for piece in pieces
            if piece.data_offset + piece.length < piece.wanted.data_bytes
        ]
        if pieces:
            yield chunk, pieces


def _piece(chunk: Chunk, want: Want, done: int) -> Piece[Want]:
    offset = want.content.offset if not done else 0
    length = min(chunk.length - offset, want.data_bytes - done)
    if length <= 0:
        raise ArchiveDamagedError(f"chunk {chunk.index} is shorter than its files need")
    return Piece(want, offset, length, done)
