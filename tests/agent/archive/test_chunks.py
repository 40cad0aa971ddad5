"""Chunks of an archive: the cache fetches each once, and the pages of chunk lists are found by index.

The cache keeps no failures and drops the least recently used chunks. Pages have any size, indexes have gaps, and tokens
are used again.
"""

from __future__ import annotations

import threading
from contextlib import closing
from hashlib import sha256

import pytest

from cryostore.agent.archive.chunks import CachedChunkPages, ChunkCache, ChunkPages
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.model.chunks import Chunk


class Fetching:
    """An archive in which each chunk contains its own token; records the fetched chunks."""

    def __init__(self):
        self.fetched = []
        self.damaged = set()
        self.gate = threading.Event()
        self.gate.set()

    def chunk_buffer(self, chunk):
        self.gate.wait()
        self.fetched.append(chunk.chunk_token)
        if chunk.chunk_token in self.damaged:
            raise ArchiveDamagedError(chunk.chunk_token)
        return chunk.chunk_token.encode()


def chunk(name, length=10):
    digest = sha256(name.encode()).hexdigest()
    return Chunk(index=0, length=length, checksum=digest, checksum_algorithm="SHA256", chunk_token=name)


def test_a_chunk_is_fetched_once_for_all_callers():
    archive = Fetching()
    archive.gate.clear()
    with closing(ChunkCache()) as cache:
        cache.prefetch(archive, chunk("a"))
        cache.prefetch(archive, chunk("a"))
        archive.gate.set()
        assert [cache.get(archive, chunk("a")) for _ in range(3)] == [b"a"] * 3
    assert archive.fetched == ["a"]


def test_the_least_recently_used_chunk_is_dropped():
    archive = Fetching()
    with closing(ChunkCache(bytes_max=20)) as cache:
        for name in ["a", "b", "a", "c", "a", "b"]:
            cache.get(archive, chunk(name))
    assert archive.fetched == ["a", "b", "c", "b"]


def test_a_chunk_larger_than_the_cache_is_kept_alone():
    archive = Fetching()
    with closing(ChunkCache(bytes_max=5)) as cache:
        assert [cache.get(archive, chunk("a")) for _ in range(2)] == [b"a"] * 2
    assert archive.fetched == ["a"]


def test_a_failure_is_not_cached():
    archive = Fetching()
    archive.damaged.add("a")
    with closing(ChunkCache()) as cache:
        for _ in range(2):
            with pytest.raises(ArchiveDamagedError):
                cache.get(archive, chunk("a"))
        archive.damaged.clear()
        assert cache.get(archive, chunk("a")) == b"a"
    assert archive.fetched == ["a", "a", "a"]


# --- pages of chunk lists --------------------------------------------------------------------------------------------


class Lists:
    """An archive that lists the chunks of one content object in given pages; records the requested pages."""

    def __init__(self, *pages):
        self.pages = pages
        self.asked = []

    def content_pages(self, number, token=None):
        for at in range(int(token or 0), len(self.pages)):
            self.asked.append(at)
            following = str(at + 1) if at + 1 < len(self.pages) else None
            yield [listed_chunk(index) for index in self.pages[at]], following


def listed_chunk(index):
    return Chunk(index=index, length=1, checksum="", checksum_algorithm="SHA256", chunk_token=str(index))


def indexes(chunks):
    return [each.index for each in chunks]


@pytest.mark.parametrize("kind", [ChunkPages, CachedChunkPages])
@pytest.mark.parametrize("pages", [([0, 1, 2], [3], [7, 9], [10]), ([0], [], [5, 6]), ([],), ([4, 5, 6],)])
def test_a_list_from_any_index_has_all_later_chunks(kind, pages):
    everything = [index for page in pages for index in page]
    listed = kind(Lists(*pages))
    for start in [0, 5, 3, 11, 8, 0]:
        assert indexes(listed.from_chunk(1, start)) == [index for index in everything if index >= start]


def test_a_later_call_starts_at_the_page_with_its_index():
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
