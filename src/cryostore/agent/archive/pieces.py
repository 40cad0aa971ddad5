"""Pieces of chunks: the chunks that some files need, in storage order, and the bytes of each file in each chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

from cryostore.agent.archive.chunks import ChunkPages
from cryostore.agent.entry import Content
from cryostore.agent.errors import DAMAGE, ArchiveDamagedError
from cryostore.model.chunks import Chunk

PAGE_CHUNKS = 100


class ContentRange(Protocol):
    """A file that needs `data_bytes` bytes of content, beginning at `content`."""

    @property
    def content(self) -> Content:
        """Where the bytes begin."""

    @property
    def data_bytes(self) -> int:
        """How many bytes are needed, at least one."""


File = TypeVar("File", bound=ContentRange)


class Piece(NamedTuple, Generic[File]):
    """`length` bytes at `chunk_offset` of a chunk, which are the bytes at `data_offset` of the file's data."""

    file: File
    chunk_offset: int
    length: int
    data_offset: int


def chunks_with_pieces(
    pages: ChunkPages, files: Sequence[File], lose: Callable[[File, str], None] | None = None
) -> Iterator[tuple[Chunk, list[Piece[File]]]]:
    """Return each chunk that is needed, once, with its pieces.

    A file whose bytes are not all listed is passed to `lose` with the reason, and the other files continue. Without
    `lose`, raises ArchiveDamagedError for it. Raises what the store raises.
    """
    by_object: dict[int, list[File]] = {}
    for file in files:
        by_object.setdefault(file.content.object_number, []).append(file)
    for number in sorted(by_object):
        yield from _ObjectPieces(pages, number, sorted(by_object[number], key=attrgetter("content")), lose).chunks()


class _ObjectPieces(Generic[File]):
    """The files that need one content object, in the order of its chunks."""

    def __init__(
        self, pages: ChunkPages, number: int, files: list[File], lose: Callable[[File, str], None] | None
    ) -> None:
        self._pages = pages
        self._number = number
        self._waiting = deque(files)
        self._begun: list[tuple[File, int]] = []
        self._lose_one = lose
        self._chunks: Iterator[Chunk] = iter(())
        self._index = -1

    def chunks(self) -> Iterator[tuple[Chunk, list[Piece[File]]]]:
        while self._waiting or self._begun:
            if (chunk := self._next()) is None:
                self._lose(f"content object {self._number} lacks chunks that its files need")
                return
            if self._begun and chunk.index != self._index + 1:
                self._lose_begun()
            while self._waiting and self._waiting[0].content.chunk < chunk.index:
                self._lost(self._waiting.popleft(), f"content object {self._number} lacks chunks that its files need")
            self._index = chunk.index
            if pieces := self._pieces(chunk):
                yield chunk, pieces

    def _next(self) -> Chunk | None:
        """Return the next chunk; None after the last, or if it cannot be listed. Raises what the store raises."""
        try:
            first = self._waiting[0].content.chunk if self._waiting else 0
            if self._index < 0 or (not self._begun and first > self._index + PAGE_CHUNKS):
                self._chunks = self._pages.from_chunk(self._number, first)
            return next(self._chunks, None)
        except DAMAGE as error:
            if self._lose_one is None:
                raise
            self._lose(error.message)
            return None

    def _pieces(self, chunk: Chunk) -> list[Piece[File]]:
        at = [(file, done, 0) for file, done in self._begun]
        while self._waiting and self._waiting[0].content.chunk == chunk.index:
            file = self._waiting.popleft()
            at.append((file, 0, file.content.offset))
        self._begun = []
        pieces = []
        for file, done, offset in at:
            length = min(chunk.length - offset, file.data_bytes - done)
            if length <= 0:
                self._lost(file, f"chunk {chunk.index} of content object {self._number} is shorter than its files need")
                continue
            pieces.append(Piece(file, offset, length, done))
            if done + length < file.data_bytes:
                self._begun.append((file, done + length))
        return pieces

    def _lose(self, reason: str) -> None:
        """Give up all files that are left."""
        self._lose_begun(reason)
        while self._waiting:
            self._lost(self._waiting.popleft(), reason)

    def _lose_begun(self, reason: str = "") -> None:
        begun, self._begun = self._begun, []
        for file, _ in begun:
            self._lost(file, reason or f"content object {self._number} lacks chunk {self._index + 1}")

    def _lost(self, file: File, reason: str) -> None:
        if self._lose_one is None:
            raise ArchiveDamagedError(reason)
        self._lose_one(file, reason)
