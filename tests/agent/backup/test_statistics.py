"""Archive statistics: counted by block, with the live bytes of each object and chunk."""

from __future__ import annotations

import stat

from cryostore.agent.backup.listing_writer import CHUNKS_MAX, ArchiveStatistics
from cryostore.agent.entry import NO_CONTENT, Content, Row

COVERS = ("agent/backup/listing_writer.py",)

FILE = Row(stat.S_IFREG | 0o644, 1000, 100, 1, 0, 0, 0, 0, 0)
FOLDER = FILE._replace(mode=stat.S_IFDIR | 0o755, uid=0, gid=0)


def add(statistics, *entries):
    """Add a block of rows and contents; return the number of its files."""
    rows, contents = zip(*entries, strict=True)
    return statistics.add(b"".join(row.pack() for row in rows), b"".join(content.pack() for content in contents))


def test_files_bytes_and_owners_are_counted():
    statistics = ArchiveStatistics()
    assert add(statistics, (FOLDER, NO_CONTENT), (FILE._replace(size=5), Content(1, 0, 0))) == 1
    assert add(statistics, (FILE, NO_CONTENT)) == 1
    assert (statistics.entries, statistics.files, statistics.file_bytes) == (3, 2, 5)
    assert (statistics.users, statistics.groups) == ({0, 1000}, {0, 100})


def test_the_bytes_that_files_need_are_known_by_object_and_by_first_chunk():
    statistics = ArchiveStatistics()
    add(
        statistics,
        (FILE._replace(size=5), Content(1, 2, 10)),
        (FILE._replace(size=3), Content(1, 2, 4)),
        (FILE._replace(size=7), Content(2, 0, 0)),
    )
    assert statistics.live_bytes == {1: 8, 2: 7}
    assert {number: list(ends) for number, ends in statistics.ends.items()} == {1: [0, 0, 15], 2: [7]}
    assert statistics.unplaced == set()


def test_a_chunk_index_beyond_any_object_costs_no_memory():
    statistics = ArchiveStatistics()
    add(statistics, (FILE._replace(size=5), Content(3, CHUNKS_MAX, 0)))
    assert statistics.live_bytes == {3: 5}
    assert len(statistics.ends[3]) == 0
    assert statistics.unplaced == {3}
