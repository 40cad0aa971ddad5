"""Content: small files share chunks that end where a file says, large ones are cut where their bytes say."""

from __future__ import annotations

import io
import random

import pytest

from cryostore.agent.chunker import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, ContentChunker
from cryostore.agent.content import READ_BYTES, SHARED_BYTES_MAX, SHARED_BYTES_MIN, ContentWriter
from cryostore.agent.digest_table import DigestTable
from cryostore.agent.entry import NO_CONTENT
from cryostore.agent.upload import ObjectUpload
from cryostore.core.limits import KIB, MIB


class Kept:
    """Takes chunks where an uploader would."""

    def __init__(self):
        self.chunks = {}

    def submit(self, upload, index, data):
        self.chunks[index] = bytes(data)


def writer():
    kept = Kept()
    upload = ObjectUpload(None, "job", "content-00000001")
    return kept, ContentWriter(kept, upload, 1, ContentChunker(), DigestTable())


def small(content, data):
    content.room(len(data))[: len(data)] = data
    return content.small(len(data))


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def read_back(kept, content, length):
    data = b"".join(kept.chunks[index] for index in sorted(kept.chunks) if index >= content.chunk)
    return data[content.offset : content.offset + length]


def test_small_files_share_chunks():
    kept, content = writer()
    files = [noise(random.Random(seed).randrange(1, 100 * KIB), seed) for seed in range(200)]
    places = [small(content, data) for data in files]
    content.finish()
    assert [read_back(kept, place, len(data)) for place, data in zip(places, files, strict=True)] == files
    assert all(len(chunk) <= SHARED_BYTES_MAX for chunk in kept.chunks.values())
    assert all(len(kept.chunks[index]) >= SHARED_BYTES_MIN for index in sorted(kept.chunks)[:-1])


def test_a_small_file_that_is_known_takes_no_room():
    kept, content = writer()
    first = small(content, b"same")
    assert small(content, b"same") == first
    assert small(content, b"") == NO_CONTENT
    content.finish()
    assert kept.chunks == {0: b"same"}


def test_the_same_files_make_the_same_chunks_after_a_while():
    files = [noise(40 * KIB, seed) for seed in range(300)]
    chunks = []
    for start in (0, 7):
        kept, content = writer()
        for data in files[start:]:
            small(content, data)
        content.finish()
        chunks.append(set(kept.chunks.values()))
    assert len(chunks[0] & chunks[1]) >= len(chunks[0]) - 4


@pytest.mark.parametrize("length", [CHUNK_BYTES_MIN, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES + 5])
@pytest.mark.parametrize("expected", ["right", "too little", "too much"])
def test_a_large_file_is_cut_whole(length, expected):
    kept, content = writer()
    small(content, b"before")
    data = noise(length)
    told = {"right": length, "too little": length // 3, "too much": 2 * length}[expected]
    place, total = content.large(io.BytesIO(data).readinto, told)
    content.finish()
    assert total == length
    assert read_back(kept, place, length) == data
    assert all(len(chunk) <= CHUNK_BYTES_MAX for chunk in kept.chunks.values())


def test_where_a_file_is_cut_does_not_depend_on_how_it_is_read():
    data = noise(20 * MIB)
    kept, content = writer()
    content.large(io.BytesIO(data).readinto, len(data))
    lengths = list(ContentChunker().cuts(memoryview(data)))
    assert [len(kept.chunks[index]) for index in sorted(kept.chunks)] == lengths


def test_an_insertion_moves_the_cuts_around_it_alone():
    data = noise(24 * MIB)
    changed = data[: 12 * MIB] + b"inserted" + data[12 * MIB :]
    chunks = []
    for each in (data, changed):
        kept, content = writer()
        content.large(io.BytesIO(each).readinto, len(each))
        chunks.append(set(kept.chunks.values()))
    assert len(chunks[1] - chunks[0]) <= 3
