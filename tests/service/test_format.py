"""The format of records: what is written is read back, and other bytes are refused."""

from __future__ import annotations

import pytest

from cryostore.core.errors import ConfigurationError, DamagedDataError
from cryostore.service.recording import (
    FORMAT,
    CommitRecord,
    StoreRecord,
    VaultRecord,
    decode_record,
    encode_record,
)

COVERS = ("service/recording.py",)

COMMIT = CommitRecord(
    vault_id=1, parents=[(2, 3)], previous=4, last=True, point={"point_id": "P"}, closed=[b"gone"],
    chunk_lists=[(1, 0, 0, b"packed")],
)  # fmt: skip


@pytest.mark.parametrize(
    "record", [COMMIT, StoreRecord([{"access_key_id": "AKIA"}]), VaultRecord({"name": "v"}, [{"wrapped": b"w"}])]
)
def test_a_record_is_read_back(record):
    assert decode_record(encode_record(record), type(record)) == record


def test_entries_are_objects_and_closed_names():
    assert COMMIT.entries == 1


def test_a_later_format_asks_for_a_newer_program():
    data = bytes((FORMAT + 1,)) + encode_record(COMMIT)[1:]
    with pytest.raises(ConfigurationError, match=f"a record has format {FORMAT + 1:02x}"):
        decode_record(data, CommitRecord)
    with pytest.raises(ConfigurationError, match="a record has format none"):
        decode_record(b"", CommitRecord)


@pytest.mark.parametrize("data", [b"", b"\xc1", encode_record(StoreRecord([]))[1:]])
def test_other_bytes_are_damage(data):
    with pytest.raises(DamagedDataError):
        decode_record(bytes((FORMAT,)) + data, CommitRecord)
