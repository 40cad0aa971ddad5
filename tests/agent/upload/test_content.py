"""Content: small files share chunks, and content-defined chunking cuts large files."""

from __future__ import annotations

import io
import random

import pytest

from cryostore.agent.entry import NO_CONTENT
from cryostore.agent.upload.content import READ_BYTES, SHARED_BYTES_MAX, SHARED_BYTES_MIN, ContentWriter
from cryostore.agent.upload.cut_points import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, DISK_MARKS, PlainChunker
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.agent.upload.object_upload import ObjectUpload
from cryostore.core.compression import BLOCK_BYTES
from cryostore.core.limits import KIB, MIB

COVERS = ("agent/upload/object_upload.py",)


class Kept:
    """An uploader that keeps the chunks."""

    def __init__(self):
        self.chunks = {}

    def submit(self, upload, index, data):
        self.chunks[index] = bytes(data)


def writer():
    kept = Kept()
    upload = ObjectUpload(None, "job", "content-00000001")
    return kept, ContentWriter(kept, upload, 1, PlainChunker(), DigestTable())


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
    files = [noise(random.Random(seed).randrange(1, 60 * KIB), seed) for seed in range(200)]
    places = [small(content, data) for data in files]
    content.finish()
    assert [read_back(kept, place, len(data)) for place, data in zip(places, files, strict=True)] == files
    assert all(len(chunk) <= SHARED_BYTES_MAX for chunk in kept.chunks.values())
    assert all(len(kept.chunks[index]) >= SHARED_BYTES_MIN for index in sorted(kept.chunks)[:-1])


def test_a_known_small_file_is_not_stored_again():
    kept, content = writer()
    first = small(content, b"same")
    assert small(content, b"same") == first
    assert small(content, b"") == NO_CONTENT
    content.finish()
    assert kept.chunks == {0: b"same"}


def test_shared_chunks_are_equal_again_after_different_first_files():
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
def test_the_chunks_of_a_large_file_have_all_its_bytes(length, expected):
    kept, content = writer()
    small(content, b"before")
    data = noise(length)
    told = {"right": length, "too little": length // 3, "too much": 2 * length}[expected]
    place, total = content.large(io.BytesIO(data).readinto, told)
    content.finish()
    assert total == length
    assert read_back(kept, place, length) == data
    assert all(len(chunk) <= CHUNK_BYTES_MAX for chunk in kept.chunks.values())


def test_cut_points_do_not_depend_on_the_lengths_of_reads():
    data = noise(20 * MIB)
    kept, content = writer()
    content.large(io.BytesIO(data).readinto, len(data))
    lengths = list(PlainChunker().cuts(memoryview(data)))
    assert [len(kept.chunks[index]) for index in sorted(kept.chunks)] == lengths


def test_an_insertion_moves_nearby_cuts_only():
    data = noise(24 * MIB)
    changed = data[: 12 * MIB] + b"inserted" + data[12 * MIB :]
    chunks = []
    for each in (data, changed):
        kept, content = writer()
        content.large(io.BytesIO(each).readinto, len(each))
        chunks.append(set(kept.chunks.values()))
    assert len(chunks[1] - chunks[0]) <= 3


def cut(data, read=None, expected=None):
    kept, content = writer()
    content.large(read or io.BytesIO(data).readinto, len(data) if expected is None else expected)
    return [kept.chunks[index] for index in sorted(kept.chunks)]


def image(length, seed=1, mark=(1080, b"\x53\xef")):
    data = bytearray(noise(length, seed))
    data[mark[0] : mark[0] + len(mark[1])] = mark[1]
    return bytes(data)


@pytest.mark.parametrize("mark", DISK_MARKS)
@pytest.mark.parametrize("length", [CHUNK_BYTES_MIN + 1, 3 * READ_BYTES, 3 * READ_BYTES + 700])
def test_a_disk_image_is_cut_at_block_boundaries(mark, length):
    data = image(length, mark=mark)
    chunks = cut(data)
    assert b"".join(chunks) == data
    assert all(len(chunk) % BLOCK_BYTES == 0 for chunk in chunks[:-1])
    assert all(len(chunk) <= CHUNK_BYTES_MAX for chunk in chunks)
    assert cut(data, expected=1 << 50) == chunks  # the length of a stream is unknown


def test_a_changed_block_of_an_image_moves_nearby_cuts_only():
    data = image(32 * MIB)
    changed = data[: 12 * MIB] + noise(BLOCK_BYTES, 2) + data[12 * MIB + BLOCK_BYTES :]
    chunks = [set(cut(each)) for each in (data, changed)]
    assert 1 <= len(chunks[1] - chunks[0]) <= 3


@pytest.mark.parametrize("beginning", [b"", b"XFS", b"XFSB", bytes(510) + b"\x55", bytes(1080) + b"\x53"])
def test_content_shorter_than_the_mark_of_a_disk_is_one_chunk(beginning):
    assert b"".join(cut(beginning)) == beginning
