"""Sealed records: each part is bound to its name, and other blobs are ignored."""

from __future__ import annotations

import pytest

from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.records import RecordName, Records
from cryostore.core.errors import BlobExistsError, BlobNotFoundError, DamagedDataError, KeyUnavailableError
from support.stores.memory_keyring import MemoryKeyring

KEY = DataKey(b"k" * 16, b"s" * 32)
NAME = RecordName("commit", 1, 7, 3, 0)
KEYS = {KEY.key_id: KEY}.get


@pytest.fixture
def blobs():
    return MemoryBlobs()


@pytest.fixture
def records(blobs):
    return Records(blobs, MemoryKeyring())


def test_a_part_reads_back(records):
    records.put(NAME, b"data", KEY)
    assert records.get(NAME, KEYS) == b"data"
    assert records.has(NAME)
    assert not records.has(NAME._replace(part=1))


def test_a_wrapped_part_reads_back(records, blobs):
    records.put_wrapped(NAME, b"data")
    assert records.get_wrapped(NAME) == b"data"
    assert records.wrapped(NAME) == blobs.get(NAME.key)


def test_a_part_is_never_replaced(records):
    for put in (lambda: records.put(NAME, b"one", KEY), lambda: records.put_wrapped(NAME, b"two")):
        if records.has(NAME):
            with pytest.raises(BlobExistsError):
                put()
        else:
            put()
    assert records.get(NAME, KEYS) == b"one"


def test_a_part_under_another_name_is_damaged(records, blobs):
    records.put(NAME, b"data", KEY)
    other = NAME._replace(generation=8)
    blobs.put(other.key, blobs.get(NAME.key))
    with pytest.raises(DamagedDataError):
        records.get(other, KEYS)
    records.put_wrapped(NAME._replace(part=1), b"data")
    moved = NAME._replace(part=2)
    blobs.put(moved.key, blobs.get(NAME._replace(part=1).key))
    with pytest.raises(DamagedDataError):
        records.get_wrapped(moved)


def test_a_missing_key_is_not_damage(records):
    records.put(NAME, b"data", KEY)
    with pytest.raises(KeyUnavailableError, match=KEY.key_id.hex()):
        records.get(NAME, lambda _: None)


def test_a_missing_part_raises(records):
    with pytest.raises(BlobNotFoundError):
        records.get(NAME, KEYS)
    with pytest.raises(BlobNotFoundError):
        records.get_wrapped(NAME)


def test_names_are_in_order_and_other_blobs_are_ignored(records, blobs):
    names = [NAME, NAME._replace(part=1), NAME._replace(change=10), RecordName("vault", 2, 0, 1, 0)]
    for name in reversed(names):
        records.put_wrapped(name, b"")
    for other in ("records/notes.txt", "records/commit/1.2.3.4", "packs/aa/x.pack"):
        blobs.put(other, b"")
    assert list(records.names()) == names
    assert list(records.names("vault")) == names[3:]
    assert records.holds("commit", 1, 7)
    assert not records.holds("commit", 1, 8)
    records.delete(names[3])
    assert list(records.names("vault")) == []
    records.delete(names[3])
