"""Reader of a disk: blocks, bad sectors, and sources that are not disks."""

from __future__ import annotations

import errno
import os

import pytest

from cryostore.agent.errors import SourceError
from cryostore.agent.streams.disk_reader import SECTOR_BYTES, opened_disk

DATA = bytes(range(256)) * 16
SECTORS = len(DATA) // SECTOR_BYTES


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(DATA)
    return os.fsencode(path)


def failing_at(sectors, code=errno.EIO):
    """Read as os.preadv, except where a read touches one of these sectors."""

    def preadv(fd, buffers, offset):
        end = offset + len(buffers[0])
        if any(offset < (sector + 1) * SECTOR_BYTES and end > sector * SECTOR_BYTES for sector in sectors):
            raise OSError(code, os.strerror(code))
        return os.preadv(fd, buffers, offset)

    return preadv


@pytest.mark.parametrize(
    ("bad", "unread"),
    [
        ([], []),
        ([0], [(0, 512)]),
        ([1, 2], [(512, 1024)]),
        ([1, 3], [(512, 512), (1536, 512)]),
        ([SECTORS - 1], [(len(DATA) - 512, 512)]),
        (range(SECTORS), [(0, len(DATA))]),
    ],
)
def test_unreadable_sectors_are_zeros_and_their_places_are_returned(image, bad, unread):
    expected = bytearray(DATA)
    for sector in bad:
        expected[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = bytes(SECTOR_BYTES)
    with opened_disk(image, failing_at(bad)) as disk:
        assert disk.size == len(DATA)
        assert disk.read(0, len(DATA)) == (expected, unread)


def test_any_other_error_is_a_failure_of_the_disk(image):
    with opened_disk(image, failing_at([1], errno.ENXIO)) as disk, pytest.raises(SourceError):
        disk.read(0, len(DATA))


def test_a_short_read_is_continued_and_a_shorter_disk_is_an_error(image):
    def one_byte(fd, buffers, offset):
        return os.preadv(fd, [buffers[0][:1]], offset)

    with opened_disk(image, one_byte) as disk:
        assert disk.read(256, 256) == (bytearray(range(256)), [])
        os.truncate(image, 300)
        with pytest.raises(SourceError, match="became shorter"):
            disk.read(256, 256)


def test_holes_are_skipped(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"x")
    with opened_disk(os.fsencode(path)) as disk:
        first = disk.next_data(0)
        assert first in (0, 4 << 20), "a file system without SEEK_DATA reports no hole"
        assert disk.next_data(4 << 20) == 4 << 20
        if first:
            assert disk.next_data(5 << 20) == disk.size


def test_a_fifo_is_refused_without_opening_it(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError, match="use --stdin to back up a stream"), opened_disk(bytes(tmp_path / "fifo")):
        pass


@pytest.mark.parametrize("name", [".", "none"])
def test_other_sources_are_refused(tmp_path, name):
    with pytest.raises(SourceError), opened_disk(bytes(tmp_path / name)):
        pass
