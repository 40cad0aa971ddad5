"""Layout of a sparse file: its data segments, and the file ranges of stored data."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.archive.sparse_layout import (
    DataSegment,
    data_bytes_of,
    data_segments,
    file_ranges,
    listed_data_bytes,
)
from cryostore.agent.block import Extra, ExtraKind
from cryostore.agent.entry import NO_CONTENT, Row


@st.composite
def layouts(draw):
    """The size of a file and its holes, some of them adjacent or empty."""
    parts = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=6))
    at, holes = 0, []
    for gap, length in parts:
        holes.append((at + gap, length))
        at += gap + length
    return at + draw(st.integers(0, 5)), holes


def test_holes_at_both_ends_and_in_the_middle():
    holes = [(0, 10), (20, 5), (40, 60)]
    assert list(data_segments(100, holes)) == [DataSegment(10, 10, 0), DataSegment(25, 15, 10)]
    assert data_bytes_of(100, holes) == 25
    assert list(file_ranges(100, holes, 5, 10)) == [(15, 5), (25, 5)]


def test_a_file_without_holes_is_one_segment():
    assert list(data_segments(100, [])) == [DataSegment(0, 100, 0)]
    assert list(data_segments(0, [])) == []
    assert list(file_ranges(100, [], 30, 20)) == [(30, 20)]


@given(layouts(), st.data())
def test_file_ranges_agree_with_the_segments(layout, data):
    size, holes = layout
    hole_bytes = {byte for offset, length in holes for byte in range(offset, offset + length)}
    expected = [byte for byte in range(size) if byte not in hole_bytes]
    segments = list(data_segments(size, holes))
    assert [s.offset + byte for s in segments for byte in range(s.length)] == expected
    assert [s.data_offset + byte for s in segments for byte in range(s.length)] == list(range(len(expected)))
    assert data_bytes_of(size, holes) == len(expected)
    first = data.draw(st.integers(0, len(expected)))
    length = data.draw(st.integers(0, len(expected) - first))
    ranges = list(file_ranges(size, holes, first, length)) if holes else [(first, length)]
    assert [start + byte for start, part in ranges for byte in range(part)] == expected[first : first + length]


def test_damaged_holes_of_a_listed_entry_raise_no_error():
    row = Row(0o100644, 0, 0, 1, 0, 100, 0, 1, 1)
    holes = [Extra(ExtraKind.HOLES, (90).to_bytes(8, "little") + (70).to_bytes(8, "little"))]
    assert listed_data_bytes(ArchiveEntry(b"file", row, NO_CONTENT, holes)) == 30
