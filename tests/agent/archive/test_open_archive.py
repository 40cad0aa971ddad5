"""Opening the archive of a recovery point: its restore job ends with the context.

Sound copies of small files are found by digest in newer archives, verified, and not in objects that both share.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from hashlib import sha256
from types import SimpleNamespace

import pytest

from cryostore.agent.archive.open_archive import SoundCopies, open_archive
from cryostore.agent.archive.recovery_points import find_point
from cryostore.agent.block import Kind, decode, encode
from cryostore.agent.entry import Content, Row
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.client import pages
from cryostore.model.chunks import Chunk
from cryostore.model.restore_jobs import ListRestoreJobs
from support.archives.agent import write

FILE = Row(0o100644, 0, 0, 1, 0, 5, 1, 1, 1).pack()


def statuses(call, arn):
    """The status of each restore job of a recovery point."""
    return [job.status for job in pages.items(call, ListRestoreJobs()) if job.recovery_point_arn == arn]


@pytest.fixture
def point(local_runs, tmp_path):
    write(tmp_path / "source", {"file": b"file"})
    local_runs.backup(tmp_path / "source")
    return find_point(local_runs.call, "latest", resource=local_runs.resource)


def test_the_restore_job_is_completed_at_the_end_of_the_context(local_runs, point):
    with open_archive(local_runs.call, point, "test") as archive:
        assert archive.header.files == 1
        assert len(statuses(local_runs.call, point.recovery_point_arn)) == 1
        assert "COMPLETED" not in statuses(local_runs.call, point.recovery_point_arn)
    assert statuses(local_runs.call, point.recovery_point_arn) == ["COMPLETED"]


def test_the_restore_job_fails_if_the_context_raises(local_runs, point):
    with pytest.raises(ArchiveDamagedError), open_archive(local_runs.call, point, "test"):
        raise ArchiveDamagedError("damaged")
    assert statuses(local_runs.call, point.recovery_point_arn) == ["FAILED"]


def digest(data):
    return sha256(data).digest()[:16]


class Newer:
    """A newer archive: one content object with a shared chunk of small files."""

    def __init__(self, *files, checksum=b"new"):
        self.header = SimpleNamespace(objects=[SimpleNamespace(number=1)])
        self.object_checksums = lambda: {"content-00000001": checksum}
        self.data = b"".join(files)
        self.files = files
        self.damaged = False
        self.opened = 0

    def blocks(self):
        names = b"".join(b"%d\0" % number for number in range(len(self.files)))
        offsets = [sum(map(len, self.files[:number])) for number in range(len(self.files))]
        contents = [Content(1, 0, at, digest(file)).pack() for at, file in zip(offsets, self.files, strict=True)]
        yield from decode(encode(Kind.DIRECTORY, b"", names, [FILE] * len(self.files), contents, {}))

    def content_pages(self, number, token=None):
        checksum = sha256(self.data).hexdigest()
        chunk = Chunk(
            index=0, length=len(self.data), checksum=checksum, checksum_algorithm="SHA256", chunk_token="token"
        )
        yield [chunk], None

    def chunk_buffer(self, chunk):
        if self.damaged:
            raise ArchiveDamagedError("damaged")
        return self.data

    @contextmanager
    def open(self):
        self.opened += 1
        yield self


OLDER = SimpleNamespace(
    object_checksums=lambda: {"content-00000001": b"old"}, chunk_id=lambda data: sha256(data).digest()
)


def copies_in(*archives):
    return closing(SoundCopies(OLDER, lambda: (archive.open() for archive in archives)))


def test_a_file_is_read_from_the_newer_archive_that_has_it():
    first, second = Newer(b"aaaaa", b"bbbbb"), Newer(b"ccccc")
    with copies_in(first, second) as copies:
        assert first.opened == 0
        assert copies.find(digest(b"bbbbb"), 5) == b"bbbbb"
        assert copies.find(digest(b"ccccc"), 5) == b"ccccc"
        assert copies.find(digest(b"other"), 5) is None
    assert (first.opened, second.opened) == (1, 1)


def test_bytes_with_another_digest_are_not_a_copy():
    newer = Newer(b"aaaaa")
    newer.data = b"AAAAA"
    with copies_in(newer) as copies:
        assert copies.find(digest(b"aaaaa"), 5) is None


def test_a_shared_object_has_no_copies():
    with copies_in(Newer(b"aaaaa", checksum=b"old")) as copies:
        assert copies.find(digest(b"aaaaa"), 5) is None


def test_a_damaged_chunk_has_no_copies():
    newer = Newer(b"aaaaa")
    newer.damaged = True
    with copies_in(newer) as copies:
        assert copies.find(digest(b"aaaaa"), 5) is None


def test_an_archive_that_cannot_be_opened_does_not_hide_the_others():
    @contextmanager
    def failing():
        raise ArchiveDamagedError("damaged")
        yield

    sound = Newer(b"aaaaa")
    with closing(SoundCopies(OLDER, lambda: iter([failing(), sound.open()]))) as copies:
        assert copies.find(digest(b"aaaaa"), 5) == b"aaaaa"
