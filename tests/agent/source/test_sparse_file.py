"""Sparse source files: their data segments and holes, and reading the segments as one stream."""

from __future__ import annotations

import os

import pytest

from cryostore.agent.errors import SourceError
from cryostore.agent.source import file_reader
from cryostore.agent.source.file_reader import SegmentReader, data_segments, holes_between
from cryostore.core.limits import MIB

COVERS = ("agent/source/file_reader.py",)

SIZE = 4 * MIB


@pytest.fixture
def fd(tmp_path):
    """A file of 4 MiB with data in its second MiB and in its last 64 KiB."""
    opened = os.open(tmp_path / "sparse", os.O_RDWR | os.O_CREAT)
    os.ftruncate(opened, SIZE)
    os.pwrite(opened, b"a" * MIB, MIB)
    os.pwrite(opened, b"z" * (64 << 10), SIZE - (64 << 10))
    yield opened
    os.close(opened)


def test_segments_and_holes_cover_the_file(fd):
    segments = data_segments(fd, SIZE)
    assert segments == [(MIB, MIB), (SIZE - (64 << 10), 64 << 10)]
    holes = holes_between(segments, SIZE)
    assert holes == [(0, MIB), (2 * MIB, 2 * MIB - (64 << 10))]
    assert sum(length for _, length in segments + holes) == SIZE


def test_a_file_of_one_hole_has_no_segments(tmp_path):
    with (tmp_path / "hole").open("wb+") as file:
        file.truncate(MIB)
        assert data_segments(file.fileno(), MIB) == []
    assert holes_between([], MIB) == [(0, MIB)]


def test_a_file_system_without_hole_information(fd, monkeypatch):
    def refuse(*_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", refuse)
    assert data_segments(fd, SIZE) is None


def test_the_short_ones_of_too_many_holes_become_data(monkeypatch):
    monkeypatch.setattr(file_reader, "HOLES_MAX", 2)
    found = [(0, 10), (11, 10), (30, 10), (90, 10)]  # holes of 1, 9 and 50 bytes
    monkeypatch.setattr(file_reader, "_seek_segments", lambda _fd, _size: iter(found))
    segments = data_segments(-1, 100)
    assert segments == [(0, 40), (90, 10)]
    assert holes_between(segments, 100) == [(40, 50)]


def test_the_segments_are_read_as_one_stream(fd):
    counted = []
    reader = SegmentReader(fd, b"sparse", data_segments(fd, SIZE), counted.append)
    buffer = bytearray(2 * MIB)
    assert reader.read(memoryview(buffer)) == MIB + (64 << 10)
    assert bytes(buffer[: MIB + (64 << 10)]) == b"a" * MIB + b"z" * (64 << 10)
    assert reader.is_whole
    assert sum(counted) == MIB + (64 << 10)
    assert reader.read(memoryview(buffer)) == 0


def test_missing_bytes_of_a_truncated_file_are_zeros(fd):
    segments = data_segments(fd, SIZE)
    os.ftruncate(fd, MIB + 10)
    reader = SegmentReader(fd, b"sparse", segments, lambda _: None)
    buffer = bytearray(b"x" * 2 * MIB)
    assert reader.read(memoryview(buffer)) == MIB + (64 << 10)
    assert bytes(buffer[: MIB + (64 << 10)]) == b"a" * 10 + bytes(MIB - 10 + (64 << 10))
    assert not reader.is_whole


def test_an_error_names_the_file(fd):
    reader = SegmentReader(-1, b"sparse", [(0, 10)], lambda _: None)
    with pytest.raises(SourceError) as raised:
        reader.read(memoryview(bytearray(10)))
    assert raised.value.path == b"sparse"
