"""Cache of fetched chunks: each is fetched once, failures are not kept, and the oldest go first."""

from __future__ import annotations

import threading
from contextlib import closing
from hashlib import sha256

import pytest

from cryostore.agent.archive.chunk_cache import ChunkCache
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.model.chunks import Chunk


class Fetching:
    """An archive whose chunks are their own tokens; counts what is fetched."""

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
