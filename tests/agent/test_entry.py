"""Rows and contents of entries: packing, stat data, and the limits of times and link counts."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace

import pytest

from cryostore.agent.entry import (
    NO_CONTENT,
    PACKED_NO_CONTENT,
    TIME_NS_MAX,
    TIME_NS_MIN,
    UINT32_MAX,
    Content,
    Row,
    held_time,
    is_held,
    row_of,
)

ROW = Row(stat.S_IFREG | 0o640, 1000, 100, 2, 1, 12345, 1_700_000_000_000_000_001, 1_700_000_000_000_000_002, 99)


def status(mode=stat.S_IFREG | 0o640, **values):
    facts = {"st_uid": 1, "st_gid": 2, "st_nlink": 3, "st_size": 4, "st_mtime_ns": 5, "st_ctime_ns": 6, "st_ino": 7}
    return SimpleNamespace(st_mode=mode, **(facts | values))


def test_rows_and_contents_survive_packing():
    content = Content(1, 2, 3, bytes(range(16)))
    assert Row.unpack(b"".join([ROW.pack(), ROW._replace(size=7).pack()]), 1) == ROW._replace(size=7)
    assert Content.unpack(PACKED_NO_CONTENT + content.pack(), 1) == content
    assert Content.unpack(PACKED_NO_CONTENT) == NO_CONTENT


def test_a_row_has_the_stat_data_of_its_entry(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    found = os.stat(tmp_path / "file")
    row = row_of(found, 3)
    assert row.is_file
    assert not row.is_directory
    assert (row.size, row.device, row.inode) == (5, 3, found.st_ino)
    assert (row.mtime_ns, row.ctime_ns) == (found.st_mtime_ns, found.st_ctime_ns)


def test_a_directory_has_neither_size_nor_links():
    row = row_of(status(stat.S_IFDIR | 0o755), 0)
    assert row.is_directory
    assert (row.size, row.links) == (0, 0)


def test_values_outside_the_range_of_a_row_are_clamped():
    row = row_of(status(st_nlink=1 << 40, st_mtime_ns=1 << 70, st_ctime_ns=0), 0)
    assert (row.links, row.mtime_ns, row.ctime_ns) == (UINT32_MAX, TIME_NS_MAX, 1)
    assert Row.unpack(row.pack()) == row


@pytest.mark.parametrize(
    ("time_ns", "held", "exact"),
    [
        (0, 0, True),
        (TIME_NS_MAX - 1, TIME_NS_MAX - 1, True),
        (TIME_NS_MAX, TIME_NS_MAX, False),
        (TIME_NS_MAX + 1, TIME_NS_MAX, False),
        (TIME_NS_MIN - 1, TIME_NS_MIN, False),
    ],
)
def test_times_at_the_limits_are_clamped_and_inexact(time_ns, held, exact):
    assert held_time(time_ns) == held
    assert is_held(held_time(time_ns)) is exact
