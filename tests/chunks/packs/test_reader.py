"""Reading a pack in windows, and making the pack of another process durable."""

from __future__ import annotations

import os

import pytest

from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, encode_header, pack_key
from cryostore.chunks.packs.reader import PackReader
from cryostore.chunks.store import ChunkStore
from cryostore.core.errors import BlobNotFoundError, DamagedDataError
from cryostore.core.ids import random_id

PACK = "00000000-0000-4000-8000-0000000000AB"


@pytest.fixture
def blobs():
    """A store with a pack of 1,000 bytes behind its header."""
    blobs = MemoryBlobs()
    blobs.put(pack_key(PACK), encode_header(PACK) + bytes(range(250)) * 4)
    return blobs


def test_ranges_in_one_window_are_read_once(blobs, monkeypatch):
    reads = []
    get = blobs.get
    monkeypatch.setattr(blobs, "get", lambda *arguments: (reads.append(arguments[1:]), get(*arguments))[1])
    reader = PackReader(blobs, PACK, window_bytes=100)
    assert bytes(reader.range(PACK_HEADER_BYTES, 4)) == bytes(range(4))
    assert bytes(reader.range(PACK_HEADER_BYTES + 90, 10)) == bytes(range(90, 100))
    assert reads == [(PACK_HEADER_BYTES, 100)]
    assert len(reader.range(PACK_HEADER_BYTES, 500)) == 500
    assert reads[1:] == [(PACK_HEADER_BYTES, 500)]


@pytest.mark.parametrize(("offset", "length"), [(0, 1033), (1032, 1), (-1, 5), (2000, 0)])
def test_a_range_outside_of_the_pack_raises(blobs, offset, length):
    with pytest.raises(DamagedDataError):
        PackReader(blobs, PACK).range(offset, length)


def test_a_missing_pack_raises():
    with pytest.raises(BlobNotFoundError):
        PackReader(MemoryBlobs(), PACK)


def test_a_pack_without_envelopes_yields_nothing(blobs):
    assert list(PackReader(blobs, PACK).walk()) == []


def test_make_durable_flushes_the_bytes_of_a_dead_process_and_changes_nothing(tmp_path, monkeypatch):
    blobs = open_blobs(tmp_path)
    store = ChunkStore(blobs, random_id)
    appender = blobs.open_append(pack_key(PACK))
    appender.append([b"bytes"])
    flushed = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (flushed.append(os.fstat(descriptor).st_size), fsync(descriptor))
    )
    assert not store.make_durable(PACK), "its writer is alive"
    assert flushed == []
    appender.close()
    assert store.make_durable(PACK)
    assert flushed == [5]
    assert blobs.get(pack_key(PACK)) == b"bytes"
    blobs.close()


def test_making_a_missing_pack_durable_raises(tmp_path):
    blobs = open_blobs(tmp_path)
    with pytest.raises(BlobNotFoundError):
        ChunkStore(blobs, random_id).make_durable(PACK)
    blobs.close()
