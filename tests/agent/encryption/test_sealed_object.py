"""Heads and chunk tables of sealed objects: golden files, and the parts of a long table."""

from __future__ import annotations

import pytest

from cryostore.agent.encryption.sealed_object import (
    ROWS_MAX,
    ChunkFacts,
    ChunkKind,
    ChunkTable,
    Recipient,
    SealedHead,
    mark_of,
    open_chunk,
)
from cryostore.agent.errors import ArchiveDamagedError
from support.archives.sealed_samples import ARCHIVE_KEY, KEY, KEYS, golden, golden_hex

TABLE = ChunkTable()
TABLE.set(0, ChunkFacts(1000, bytes(range(32))))
TABLE.set(1, ChunkFacts(4_000_000, bytes(32)))
SEALED_HEAD = SealedHead(
    resource="tree", table=[bytes(32)], header=b'{"format":1}', recipients=[Recipient(KEY.public, "laptop")]
)


def test_a_golden_chunk_table():
    assert golden_hex("agent-piece-table.hex") == b"".join(TABLE.parts())


def test_a_golden_head():
    plain = bytes(open_chunk(KEYS, ChunkKind.HEAD, b"catalog", golden_hex("agent-sealed-head.hex")))
    assert SealedHead.decode(plain) == SEALED_HEAD
    assert mark_of(ARCHIVE_KEY, plain).hex() == golden("agent-sealed-head-mark.txt").decode().strip()


def test_a_long_table_is_split_into_parts():
    table = ChunkTable(bytes(36 * (ROWS_MAX + 5)))
    parts = list(table.parts())
    assert [len(part) // 36 for part in parts] == [ROWS_MAX, 5]
    assert len(ChunkTable(b"".join(parts))) == ROWS_MAX + 5
    with pytest.raises(ArchiveDamagedError):
        ChunkTable(bytes(35))
    with pytest.raises(ArchiveDamagedError):
        table[ROWS_MAX + 5]
