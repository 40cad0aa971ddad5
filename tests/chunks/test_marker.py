"""Markers of shared stores: the newest is valid, none is replaced, and a damaged one is not absent."""

from __future__ import annotations

import pytest

from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.marker import Marker, find_marker, is_superseded, marker_key, newest_marker, put_marker
from cryostore.core.errors import DamagedDataError, UnknownFormatError


def marker(number, token="t"):
    return Marker("store", number, token, "eu-central-1", "123456789012")


@pytest.fixture
def blobs():
    return MemoryBlobs()


def test_a_marker_reads_back(blobs):
    assert find_marker(blobs, 1) is None
    assert put_marker(blobs, marker(1))
    assert find_marker(blobs, 1) == marker(1)
    assert marker_key(1) == "store/00000001.json"


def test_a_marker_may_be_put_again_but_not_replaced(blobs):
    assert put_marker(blobs, marker(1))
    assert put_marker(blobs, marker(1))
    assert not put_marker(blobs, marker(1, token="other"))
    assert find_marker(blobs, 1) == marker(1)


def test_the_newest_marker_is_valid(blobs):
    assert newest_marker(blobs) is None
    for number in (1, 2, 3):
        put_marker(blobs, marker(number))
    assert newest_marker(blobs) == newest_marker(blobs, known=2) == marker(3)
    assert [is_superseded(blobs, number) for number in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize("data", [b"", b"{", b'{"format": 1}', b'{"format": "x"}'])
def test_a_damaged_marker_is_not_absent(blobs, data):
    blobs.put(marker_key(1), data)
    with pytest.raises(DamagedDataError):
        newest_marker(blobs)


def test_a_marker_of_a_later_format_is_not_damaged(blobs):
    blobs.put(marker_key(1), b'{"format": 2}')
    with pytest.raises(UnknownFormatError):
        find_marker(blobs, 1)
