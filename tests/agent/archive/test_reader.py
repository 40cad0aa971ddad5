"""Reader of an archive: damaged headers, chunks with wrong bytes, and results in order."""

from __future__ import annotations

import pytest

from cryostore.agent.archive.reader import digest_of
from cryostore.agent.block import Kind, encode
from cryostore.agent.entry import NO_CONTENT, Row
from cryostore.agent.errors import ArchiveDamagedError
from support.archives.agent import write
from support.archives.made_archive import plain_header, put

ROOT = encode(Kind.ROOT, b"", b"\0", [Row(0o040755, 0, 0, 0, 0, 0, 1, 1, 1).pack()], [NO_CONTENT.pack()], {})


@pytest.mark.parametrize("header", [b"", b"{}", b"[]", b"\xff", plain_header().replace(b'"format":1', b'"format":2')])
def test_a_damaged_header_is_reported_as_damage(local_runs, tmp_path, header):
    put(local_runs, ROOT, header=header)
    with pytest.raises(ArchiveDamagedError):
        local_runs.restore(tmp_path / "target")


def test_a_chunk_is_verified_against_its_checksum(local_runs, tmp_path):
    write(tmp_path / "source", {"a": b"first", "b": b"second"})
    local_runs.backup(tmp_path / "source")
    with local_runs.opened() as archive:
        (listing,) = archive.listing_chunks
        (content,) = next(archive.content_pages(1))[0]
        assert archive.chunk_id(archive.chunk_bytes(content)) == digest_of(content)
        swapped = type(content)(
            index=0,
            length=content.length,
            checksum=content.checksum,
            checksum_algorithm="SHA256",
            chunk_token=listing.chunk_token,
        )
        with pytest.raises(ArchiveDamagedError, match="does not match its checksum"):
            archive.chunk_bytes(swapped)


def test_map_ahead_returns_results_in_order(local_runs, tmp_path):
    (tmp_path / "source").mkdir()
    local_runs.backup(tmp_path / "source")
    with local_runs.opened() as archive:
        assert list(archive.map_ahead(lambda number: number * number, range(20))) == [n * n for n in range(20)]
