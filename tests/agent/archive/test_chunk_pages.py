"""Pages of chunk lists: any page size, gaps in the indexes, and tokens that are used again."""

from __future__ import annotations

import pytest

from cryostore.agent.archive.chunk_pages import CachedChunkPages, ChunkPages
from cryostore.model.chunks import Chunk


class Lists:
    """An archive that lists the chunks of one content object in given pages; counts the pages it is asked for."""

    def __init__(self, *pages):
        self.pages = pages
        self.asked = []

    def content_pages(self, number, token=None):
        for at in range(int(token or 0), len(self.pages)):
            self.asked.append(at)
            following = str(at + 1) if at + 1 < len(self.pages) else None
            yield [chunk(index) for index in self.pages[at]], following


def chunk(index):
    return Chunk(index=index, length=1, checksum="", checksum_algorithm="SHA256", chunk_token=str(index))


def indexes(chunks):
    return [each.index for each in chunks]


@pytest.mark.parametrize("kind", [ChunkPages, CachedChunkPages])
@pytest.mark.parametrize("pages", [([0, 1, 2], [3], [7, 9], [10]), ([0], [], [5, 6]), ([],), ([4, 5, 6],)])
def test_every_start_finds_the_chunks_from_there_on(kind, pages):
    everything = [index for page in pages for index in page]
    listed = kind(Lists(*pages))
    for start in [0, 5, 3, 11, 8, 0]:
        assert indexes(listed.from_chunk(1, start)) == [index for index in everything if index >= start]


def test_a_later_call_starts_in_the_page_that_it_needs():
    lists = Lists([0, 1], [2, 3], [4, 5])
    pages = ChunkPages(lists)
    assert indexes(pages.from_chunk(1, 0)) == [0, 1, 2, 3, 4, 5]
    lists.asked.clear()
    assert indexes(pages.from_chunk(1, 5)) == [5]
    assert lists.asked == [2]


def test_cached_pages_are_not_listed_again():
    lists = Lists([0, 1], [2, 3], [4, 5])
    pages = CachedChunkPages(lists)
    assert indexes(pages.from_chunk(1, 0)) == [0, 1, 2, 3, 4, 5]
    lists.asked.clear()
    assert indexes(pages.from_chunk(1, 3)) == [3, 4, 5]
    assert lists.asked == []
