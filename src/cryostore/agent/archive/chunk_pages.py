"""Pages of the chunk lists of content objects, found by chunk index.

Pages have any size and chunk indexes have gaps, so a page is found by the index that it begins with. The tokens that
lead to the pages are kept.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator

from cryostore.agent.archive.reader import Archive
from cryostore.model.chunks import Chunk

PAGES_HELD = 64


class ChunkPages:
    """Lists chunks page by page and keeps the token of each page, so that a later call starts in the right page."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._tokens: dict[int, list[str | None]] = {}
        self._starts: dict[int, list[int]] = {}

    def from_chunk(self, number: int, index: int) -> Iterator[Chunk]:
        """Return the chunks of content object `number`, from chunk `index` on."""
        page = self._page_of(number, index)
        for chunks, token in self._archive.content_pages(number, self._tokens[number][page]):
            self._note(number, page, chunks, token)
            page += 1
            for chunk in chunks:
                if chunk.index >= index:
                    yield chunk

    def _page_of(self, number: int, index: int) -> int:
        """Return the last page that is known to begin at or before a chunk."""
        self._tokens.setdefault(number, [None])
        return bisect_right(self._starts.setdefault(number, [0]), index) - 1

    def _note(self, number: int, page: int, chunks: list[Chunk], token: str | None) -> None:
        """Note where the page after this one begins, and its token."""
        tokens, starts = self._tokens[number], self._starts[number]
        if page + 1 == len(tokens) and token is not None:
            tokens.append(token)
            starts.append(chunks[-1].index + 1 if chunks else starts[-1])


class CachedChunkPages(ChunkPages):
    """Chunk pages for access in any order: the most recently used pages are kept. Thread safe."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive)
        self._lock = threading.Lock()
        self._pages: OrderedDict[tuple[int, int], list[Chunk]] = OrderedDict()

    def from_chunk(self, number: int, index: int) -> Iterator[Chunk]:
        with self._lock:
            page = self._page_of(number, index)
        while (chunks := self._page(number, page)) is not None:
            for chunk in chunks:
                if chunk.index >= index:
                    yield chunk
            page += 1

    def _page(self, number: int, page: int) -> list[Chunk] | None:
        """Return a page, None after the last one. The page before it must have been listed."""
        with self._lock:
            tokens = self._tokens[number]
            if page >= len(tokens):
                return None
            if (number, page) not in self._pages:
                chunks, token = next(self._archive.content_pages(number, tokens[page]))
                self._note(number, page, chunks, token)
                self._pages[number, page] = chunks
                if len(self._pages) > PAGES_HELD:
                    self._pages.popitem(last=False)
            return self._pages[number, page]
