"""Disk image in an archive: invalid layouts, lost segments, and chunks that do not fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cryostore.agent.archive.disk_image import disk_layout, segment_chunks
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.header import DiskLayout
from cryostore.model.chunks import Chunk


class Listed:
    """An archive with the chunk lists of a disk's segments, and nothing else."""

    def __init__(self, layout, chunks):
        self.header = SimpleNamespace(disk=layout)
        self.object_names = list(chunks)
        self._chunks = chunks

    def object_chunks(self, name):
        return [
            Chunk(index=index, length=length, checksum="", checksum_algorithm="SHA256", chunk_token="")
            for index, length in self._chunks[name]
        ]


@pytest.mark.parametrize("chunks", [[(0, 4), (2, 3)], [(4, 4)], [(0, 5)], [(1, 3)], [(-1, 4)], [(2, 1), (3, 1)]])
def test_chunks_that_do_not_fit_the_disk_are_damage(chunks):
    layout = DiskLayout(10, 4, 16, [], [0])
    with pytest.raises(ArchiveDamagedError, match="of the wrong length or position"):
        segment_chunks(Listed(layout, {"disk-00000000": chunks}), layout, 0)


def test_a_lost_segment_is_damage_and_not_zeros():
    layout = DiskLayout(40, 4, 16, [], [0, 2])
    archive = Listed(layout, {"disk-00000000": [(1, 4)]})
    assert list(segment_chunks(archive, layout, 0)) == [1]
    assert segment_chunks(archive, layout, 1) == {}
    with pytest.raises(ArchiveDamagedError, match="segment 2 of the disk is lost"):
        segment_chunks(archive, layout, 2)


@pytest.mark.parametrize("numbers", [(-1, 4, 16), (10, 0, 16), (10, 4, 0), (10, 4, 15), (10, -4, 16)])
def test_an_invalid_layout_is_damage(numbers):
    with pytest.raises(ArchiveDamagedError, match="layout of the archive's disk is invalid"):
        disk_layout(Listed(DiskLayout(*numbers, []), {}))
