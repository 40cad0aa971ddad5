"""Files of an archive: reads at any offset, sparse files, and selection by path."""

from __future__ import annotations

import os
import random
from contextlib import closing, contextmanager

import pytest

from cryostore.agent.archive.chunks import ChunkCache
from cryostore.agent.archive.files import ArchiveFiles, file_parts
from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import MIB
from support.archives.agent import write
from support.archives.single_file import streams


@contextmanager
def opened(runs):
    with runs.opened() as archive, closing(ChunkCache()) as cache:
        yield ArchiveFiles(archive, cache)


def test_a_sparse_file_is_read_from_any_offset(runs, tmp_path):
    chance = random.Random(4)
    write(tmp_path / "source", {"small": b"small", "sparse": b"", "large": chance.randbytes(3 * MIB)})
    sparse = tmp_path / "source" / "sparse"
    with sparse.open("r+b") as file:
        for offset in (MIB, 4 * MIB, 6 * MIB):
            file.seek(offset)
            file.write(chance.randbytes(300_000))
        file.truncate(8 * MIB)
    runs.backup(tmp_path / "source")
    with opened(runs) as files:
        for name in ("small", "sparse", "large"):
            data = (tmp_path / "source" / name).read_bytes()
            file = files.open(files.file(name))
            assert b"".join(file_parts(file)) == data
            for _ in range(50):
                offset, length = chance.randrange(len(data) + 10), chance.randrange(2 * MIB)
                assert file.read(offset, length) == data[offset : offset + length]
            covered = bytearray(len(data))
            for offset, length in file.segments():
                covered[offset : offset + length] = data[offset : offset + length]
            assert covered == data


def test_a_file_is_selected_by_its_path(local_runs, tmp_path):
    write(tmp_path / "source", {"folder": {"file": b"file"}})
    local_runs.backup(tmp_path / "source")
    with opened(local_runs) as files:
        assert files.file("folder/file").path == b"folder/file"
        assert files.file(os.path.join(tmp_path, "source", "folder", "file")).path == b"folder/file"
        with pytest.raises(ConfigurationError, match="folder is not a regular file"):
            files.file("folder")
        with pytest.raises(ConfigurationError, match="does not contain 'missing'"):
            files.file("missing")
        with pytest.raises(ConfigurationError, match="holds a file tree"):
            files.file("")


def test_an_empty_path_selects_the_file_of_a_stream(local_runs):
    streams(local_runs).stream(b"data")
    with opened(local_runs) as files:
        assert files.file("").path == b"file"
        assert files.open(files.only()).read(0, 10) == b"data"
