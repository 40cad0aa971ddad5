"""Blocks of the listing: their bytes, which never change, and the parts of a large directory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.agent.block import (
    PART_ENTRIES_MAX,
    WHOLE_ENTRIES_MAX,
    Extra,
    ExtraKind,
    Kind,
    decode,
    encode,
    is_name,
    order_key,
    parts_of,
)
from cryostore.agent.entry import NO_CONTENT, Content, Row
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.header import ContentObject, Header
from support import project

COVERS = ("agent/header.py",)


GOLDEN = project.ROOT / "tests" / "golden"
ROOT_ROW = Row(0o040755, 0, 0, 0, 0, 0, 1_600_000_000_000_000_001, 1_600_000_000_000_000_002, 2)
ROWS = [
    Row(0o100644, 1000, 1001, 1, 0, 5, 1_700_000_000_123_456_789, 1_700_000_000_987_654_321, 11),
    Row(0o120777, 0, 0, 1, 0, 0, -1, 1, 12),
    Row(0o100600, 1000, 1001, 2, 1, 1 << 40, 0, 0, (1 << 64) - 1),
    Row(0o020666, 0, 0, 1, 0, 0, 5, 6, 14),
]
NAMES = [b"file", b"link", b"sparse \xff", b"zero"]
CONTENTS = [Content(1, 2, 3, bytes(range(16))), NO_CONTENT, Content(4, 5, 0), NO_CONTENT]
EXTRAS = {
    0: [Extra(ExtraKind.XATTR, b"user.note\0value"), Extra(ExtraKind.CHANGED, b"")],
    1: [Extra(ExtraKind.LINK_TARGET, b"../target")],
    2: [Extra(ExtraKind.HOLES, (1 << 20).to_bytes(8, "little") + (1 << 30).to_bytes(8, "little"))],
    3: [Extra(ExtraKind.DEVICE_NUMBER, (1).to_bytes(4, "little") + (5).to_bytes(4, "little"))],
}


def golden_blocks():
    """Return the blocks of the golden archive."""
    root = encode(Kind.ROOT, b"", b"\0", [ROOT_ROW.pack()], [NO_CONTENT.pack()], {})
    names = b"".join(name + b"\0" for name in NAMES)
    rows, contents = [row.pack() for row in ROWS], [content.pack() for content in CONTENTS]
    return root + encode(Kind.DIRECTORY, b"a/b", names, rows, contents, EXTRAS)


def test_the_bytes_of_format_1_never_change():
    assert golden_blocks() == bytes.fromhex((GOLDEN / "archive-1-catalog.hex").read_text())


def test_an_archive_of_format_1_is_read():
    root, block = decode(bytes.fromhex((GOLDEN / "archive-1-catalog.hex").read_text()))
    assert (root.kind, root.path, root.name_list()) == (Kind.ROOT, b"", [b""])
    assert Row.unpack(root.rows) == ROOT_ROW
    assert (block.kind, block.path, block.name_list(), block.extras_of()) == (Kind.DIRECTORY, b"a/b", NAMES, EXTRAS)
    assert [Row.unpack(block.rows, index) for index in range(4)] == ROWS
    assert [Content.unpack(block.contents, index) for index in range(4)] == CONTENTS


def test_a_header_of_format_1_is_read_and_written_unchanged():
    data = (GOLDEN / "archive-1-header.json").read_bytes().strip()
    header = Header(
        root=b"/folder \xff",
        only=[b"a"],
        entries=6,
        files=2,
        file_bytes=(1 << 40) + 5,
        objects=[ContentObject(1, 10, 5), ContentObject(4, 1 << 20, 1 << 20)],
        users={0: "root", 1000: "someone"},
        groups={0: "root"},
    )
    assert Header.decode(data) == header
    assert header.encode() == data


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_reported_as_damaged(data):
    try:
        blocks = list(decode(data))
        assert b"".join(block.raw for block in blocks) == data
    except ArchiveDamagedError:
        pass


@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_changed_byte_gives_no_invalid_names(place, value):
    data = bytearray(golden_blocks())
    data[place % len(data)] = value
    try:
        for block in decode(bytes(data)):
            assert all(map(is_name, block.name_list())) or block.kind == Kind.ROOT
            block.extras_of()
    except ArchiveDamagedError:
        pass


@pytest.mark.parametrize("count", [0, 1, WHOLE_ENTRIES_MAX, WHOLE_ENTRIES_MAX + 1, 20_000])
def test_parts_contain_every_name_once(count):
    names = [b"%06d" % number for number in range(count)]
    parts = list(parts_of(names))
    assert [index for part in parts for index in part] == list(range(count))
    assert all(len(part) <= PART_ENTRIES_MAX for part in parts)


def test_a_new_name_changes_only_the_parts_around_it():
    names = [b"%06d" % number for number in range(20_000)]
    before = {tuple(names[index] for index in part) for part in parts_of(names)}
    changed = sorted([*names, b"010000b"])
    after = {tuple(changed[index] for index in part) for part in parts_of(changed)}
    assert len(before) > 10
    assert len(after - before) <= 2


@given(st.lists(st.lists(st.sampled_from([b"a", b"b", b"a b", b"a\x01", b"\xff"]), max_size=4), max_size=8))
def test_paths_are_sorted_in_the_order_of_a_walk(paths):
    assert sorted(paths) == sorted(paths, key=lambda path: order_key(b"/".join(path)))
