"""Chunk list pages of content objects, found by chunk index."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator

from cryostore.agent.archive.reader import Archive
from cryostore.model.chunks import Chunk

PAGES_HELD = 64


class ChunkPages:
    """Pages of chunk lists, with the tokens that lead to them kept.

    A page is found by the index that it begins with: pages have any size, and indexes have gaps.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._tokens: dict[int, list[str | None]] = {}
        self._starts: dict[int, list[int]] = {}

    def from_chunk(self, number: int, index: int) -> Iterator[Chunk]:
        """The chunks of a content object from an index on."""
        page = self._page_of(number, index)
        for chunks, token in self._archive.content_pages(number, self._tokens[number][page]):
            self._note(number, page, chunks, token)
            page += 1
            for chunk in chunks:
                if chunk.index >= index:
                    yield chunk

    def _page_of(self, number: int, index: int) -> int:
        """The last page known to begin at or before a chunk."""
        self._tokens.setdefault(number, [None])
        return bisect_right(self._starts.setdefault(number, [0]), index) - 1

    def _note(self, number: int, page: int, chunks: list[Chunk], token: str | None) -> None:
        """Note what leads to the page behind this one."""
        tokens, starts = self._tokens[number], self._starts[number]
        if page + 1 == len(tokens) and token is not None:
            tokens.append(token)
            starts.append(chunks[-1].index + 1 if chunks else starts[-1])


class CachedChunkPages(ChunkPages):
    """As ChunkPages, for who asks in any order: the last used pages are kept. Thread safe."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive)
        self._of = archive
        self._lock = threading.Lock()
        self._pages: OrderedDict[tuple[int, int], list[Chunk]] = OrderedDict()

    def from_chunk(self, number: int, index: int) -> Iterator[Chunk]:
        with self._lock:
            page = self._page_of(number, index)
        while chunks := self._page(number, page):
            for chunk in chunks:
                if chunk.index >= index:
                    yield chunk
            page += 1

    def _page(self, number: int, page: int) -> list[Chunk]:
        with self._lock:
            if (number, page) not in self._pages:
                self._list_up_to(number, page)
            return self._pages.get((number, page), [])

    def _list_up_to(self, number: int, page: int) -> None:
        tokens = self._tokens[number]
        at = min(page, len(tokens) - 1)
        for chunks, token in self._of.content_pages(number, tokens[at]):
            self._pages[number, at] = chunks
            if len(self._pages) > PAGES_HELD:
                self._pages.popitem(last=False)
            self._note(number, at, chunks, token)
            at += 1
            if at > page:
                return
