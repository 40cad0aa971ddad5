"""Which chunks a set of files needs, in the order in which they lie, each with all that is to be taken from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

from cryostore.agent.archive.chunk_pages import ChunkPages
from cryostore.agent.entry import Content
from cryostore.agent.errors import DAMAGE, ArchiveDamagedError
from cryostore.model.chunks import Chunk

PAGE_CHUNKS = 100


class ContentRange(Protocol):
    """What needs bytes of the content: `data_bytes` of them, from `content` on."""

    @property
    def content(self) -> Content:
        """Where its bytes begin."""

    @property
    def data_bytes(self) -> int:
        """How many they are; more than none."""


Want = TypeVar("Want", bound=ContentRange)


class Piece(NamedTuple, Generic[Want]):
    """`length` bytes at `chunk_offset` of a chunk, which are those at `data_offset` of the file's bytes."""

    wanted: Want
    chunk_offset: int
    length: int
    data_offset: int


def chunks_with_pieces(
    pages: ChunkPages, wanted: Sequence[Want], lose: Callable[[Want, str], None] | None = None
) -> Iterator[tuple[Chunk, list[Piece[Want]]]]:
    """Each chunk that is needed, once, with its pieces.

    Raises ArchiveDamagedError if the bytes of one are not there, and what the store raises; with `lose`, such a one is
    given to that, and the others go on.
    """
    by_object: dict[int, list[Want]] = {}
    for want in wanted:
        by_object.setdefault(want.content.object_number, []).append(want)
    for number in sorted(by_object):
        yield from _OfObject(pages, number, sorted(by_object[number], key=attrgetter("content")), lose).chunks()


class _OfObject(Generic[Want]):
    """What is wanted of one content object, in the order of its chunks."""

    def __init__(
        self, pages: ChunkPages, number: int, wanted: list[Want], lose: Callable[[Want, str], None] | None
    ) -> None:
        self._pages = pages
        self._number = number
        self._wanted = deque(wanted)
        self._begun: list[tuple[Want, int]] = []
        self._lose_one = lose
        self._chunks: Iterator[Chunk] = iter(())
        self._index = -1

    def chunks(self) -> Iterator[tuple[Chunk, list[Piece[Want]]]]:
        while self._wanted or self._begun:
            if (chunk := self._next()) is None:
                self._lose(f"content object {self._number} lacks chunks that its files need")
                return
            if self._begun and chunk.index != self._index + 1:
                self._lose_begun()
            while self._wanted and self._wanted[0].content.chunk < chunk.index:
                self._lost(self._wanted.popleft(), f"content object {self._number} lacks chunks that its files need")
            self._index = chunk.index
            if pieces := self._pieces(chunk):
                yield chunk, pieces

    def _next(self) -> Chunk | None:
        """The next chunk; none behind the last, and none that is not listed. Raises what the store raises."""
        try:
            first = self._wanted[0].content.chunk if self._wanted else 0
            if self._index < 0 or (not self._begun and first > self._index + PAGE_CHUNKS):
                self._chunks = self._pages.from_chunk(self._number, first)
            return next(self._chunks, None)
        except DAMAGE as error:
            if self._lose_one is None:
                raise
            self._lose(error.message)
            return None

    def _pieces(self, chunk: Chunk) -> list[Piece[Want]]:
        at = [(want, done, 0) for want, done in self._begun]
        while self._wanted and self._wanted[0].content.chunk == chunk.index:
            want = self._wanted.popleft()
            at.append((want, 0, want.content.offset))
        self._begun = []
        pieces = []
        for want, done, offset in at:
            length = min(chunk.length - offset, want.data_bytes - done)
            if length <= 0:
                self._lost(want, f"chunk {chunk.index} of content object {self._number} is shorter than its files need")
                continue
            pieces.append(Piece(want, offset, length, done))
            if done + length < want.data_bytes:
                self._begun.append((want, done + length))
        return pieces

    def _lose(self, reason: str) -> None:
        """Give up all that is left."""
        self._lose_begun(reason)
        while self._wanted:
            self._lost(self._wanted.popleft(), reason)

    def _lose_begun(self, reason: str = "") -> None:
        begun, self._begun = self._begun, []
        for want, _ in begun:
            self._lost(want, reason or f"content object {self._number} lacks chunk {self._index + 1}")

    def _lost(self, want: Want, reason: str) -> None:
        if self._lose_one is None:
            raise ArchiveDamagedError(reason)
        self._lose_one(want, reason)
