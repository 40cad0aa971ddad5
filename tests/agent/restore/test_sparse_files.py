"""Sparse files in a restore: holes punched into old data, and ranges recognized as zeros."""

from __future__ import annotations

import os

import pytest

from cryostore.agent.restore import sparse_files
from cryostore.agent.restore.sparse_files import is_zero, pread_all, pwrite_all, write_zeros
from cryostore.core.limits import MIB


@pytest.fixture
def fd(tmp_path):
    """A file of 4 MiB without a zero byte."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4 * MIB)
    opened = os.open(path, os.O_RDWR)
    yield opened
    os.close(opened)


def test_old_data_becomes_a_hole(fd):
    os.fsync(fd)
    before = os.fstat(fd).st_blocks
    write_zeros(fd, MIB, 2 * MIB)
    assert os.pread(fd, 4 * MIB, 0) == b"x" * MIB + bytes(2 * MIB) + b"x" * MIB
    assert os.fstat(fd).st_size == 4 * MIB
    assert os.fstat(fd).st_blocks < before


def test_zeros_are_written_if_no_hole_can_be_punched(fd, monkeypatch):
    monkeypatch.setattr(sparse_files, "_fallocate", lambda *_: -1)
    write_zeros(fd, MIB - 1, 2 * MIB + 2)
    assert os.pread(fd, 4 * MIB, 0) == b"x" * (MIB - 1) + bytes(2 * MIB + 2) + b"x" * (MIB - 1)


@pytest.mark.parametrize("byte", [0, MIB - 1, 3 * MIB])
def test_a_range_with_one_other_byte_is_not_zero(fd, byte):
    os.ftruncate(fd, 0)
    os.ftruncate(fd, 4 * MIB)
    assert is_zero(fd, 0, 4 * MIB)
    os.pwrite(fd, b"x", byte)
    assert not is_zero(fd, 0, 4 * MIB)
    assert is_zero(fd, byte + 1, 4 * MIB - byte - 1)
    assert is_zero(fd, 0, byte)


def test_written_zeros_count_as_zeros(fd):
    os.pwrite(fd, bytes(4 * MIB), 0)
    assert is_zero(fd, 0, 4 * MIB)


def test_short_reads_and_writes_are_continued(fd, monkeypatch):
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 3), offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
    pwrite_all(fd, b"0123456789", 5)
    assert pread_all(fd, 4, 12) == b"x0123456789x"
    assert pread_all(fd, 4 * MIB - 5, 100) == b"xxxxx"
