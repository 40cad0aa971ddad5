"""Backup and restore of disk images and block devices: the content is the same, and a run sends changed blocks only.

The reader of a disk: blocks, bad sectors, and sources that are not disks.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryostore.agent.archive.files import file_parts
from cryostore.agent.encryption.key_objects import is_key_name
from cryostore.agent.errors import SourceError
from cryostore.agent.streams.device import SECTOR_BYTES, opened_disk
from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import KIB, MIB
from cryostore.model.objects import StartObject
from support.archives.agent import Runs
from support.archives.single_file import SEGMENT_BYTES, disks, write_at

COVERS = ("agent/upload/object_upload.py",)
DATA = bytes(range(256)) * 16
SECTORS = len(DATA) // SECTOR_BYTES


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


@pytest.fixture
def store_runs(runs):
    """As `runs`, so that a test can name its disk runs `runs`."""
    return runs


def blocks_of(runs):
    """The stored blocks of the latest recovery point, by segment."""
    with disks(runs).files() as files:
        disk = files.open(files.only())
        count = -(-disk.size // SEGMENT_BYTES)
        return [sorted(disk.segment(number)) for number in range(count)]


def test_an_image_is_restored_with_its_holes(store_runs, image, tmp_path):
    runs = disks(store_runs)
    report, _ = runs.disk(image)
    assert (report.file_bytes, report.total_bytes, report.issue_count) == (11 * MIB + 5, 11 * MIB + 5, 0)
    assert report.read_bytes <= 5 * MIB
    assert blocks_of(store_runs) == [[0, 1, 3], [0], [3]]
    assert runs.content() == image.read_bytes()
    runs.restore(tmp_path / "out.raw")
    assert (tmp_path / "out.raw").read_bytes() == image.read_bytes()
    assert (tmp_path / "out.raw").stat().st_blocks * 512 <= 5 * MIB


def test_the_backup_of_an_unchanged_image_sends_no_block(store_runs, image):
    disks(store_runs).disk(image)
    report, outcome = disks(store_runs).disk(image)
    assert outcome.same
    assert report.sent_bytes < (64 * KIB if store_runs.key else 4096)
    assert report.unchanged == 1


def test_an_unchanged_segment_is_not_uploaded(local_runs, image):
    disks(local_runs).disk(image)
    write_at(image, 5 * MIB, b"changed")
    begun = []

    class Watching:
        def call(self, operation):
            if isinstance(operation, StartObject):
                begun.append(operation.object_name)
            return call.call(operation)

    call, local_runs.call = local_runs.call, Watching()
    disks(local_runs).disk(image)
    assert sorted(begun) == ["catalog", "disk-00000001"]


def test_a_changed_block_is_sent_alone_and_other_segments_are_inherited(store_runs, image):
    runs = disks(store_runs)
    runs.disk(image)
    write_at(image, 3 * MIB + 7, b"changed")
    with store_runs.opened() as archive:
        before = archive.object_checksums()
    report, outcome = runs.disk(image)
    assert not outcome.same
    assert MIB <= report.sent_bytes < MIB + (64 * KIB if store_runs.key else 4096)
    with store_runs.opened() as archive:
        after = archive.object_checksums()
    assert {name for name in after if after[name] != before[name]} == {"catalog", "disk-00000000"}
    assert runs.content() == image.read_bytes()


def test_a_block_of_zeros_is_not_stored_and_replaces_a_stored_block(store_runs, image):
    runs = disks(store_runs)
    runs.disk(image)
    write_at(image, 0, bytes(2 * MIB))
    write_at(image, 11 * MIB, bytes(5))
    runs.disk(image)
    assert blocks_of(store_runs) == [[3], [0], []]
    with store_runs.opened() as archive:
        names = [name for name in archive.object_names if not is_key_name(name)]
    assert names == ["catalog", "disk-00000000", "disk-00000001"]
    assert runs.content() == image.read_bytes()


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 1, SEGMENT_BYTES, 11 * MIB, 11 * MIB + 6, 30 * MIB])
def test_an_image_whose_size_has_changed(local_runs, image, size):
    runs = disks(local_runs)
    runs.disk(image)
    first = local_runs.latest()
    before = image.read_bytes()
    os.truncate(image, size)
    runs.disk(image)
    assert runs.content() == image.read_bytes()
    assert runs.content(first) == before


def test_bad_sectors_are_stored_as_zeros_and_are_issues(local_runs, image):
    """One disk has two bad sectors. Every read of the other disk fails with another error."""
    data = image.read_bytes()
    bad = {MIB // 512 + 1, MIB // 512 + 2}

    def preadv(fd, buffers, offset):
        (view,) = buffers
        if bad & set(range(offset // 512, (offset + len(view) - 1) // 512 + 1)):
            raise OSError(errno.EIO, "Input/output error")
        return os.preadv(fd, buffers, offset)

    report, _ = disks(local_runs).disk(image, preadv=preadv)
    assert [issue.reason for issue in report.issues] == [f"1024 bytes at {MIB + 512} cannot be read: stored as zeros"]
    assert disks(local_runs).content() == data[: MIB + 512] + bytes(1024) + data[MIB + 1536 :]
    with local_runs.opened() as archive:
        assert archive.header.disk.unread == [(MIB + 512, 1024)]

    def gone(fd, buffers, offset):
        raise OSError(errno.ENXIO, "No such device or address")

    with pytest.raises(SourceError, match="No such device"):
        disks(local_runs).disk(image, preadv=gone)


def test_sources_that_are_not_disks(local_runs, tmp_path):
    with pytest.raises(SourceError, match="neither a block device nor a file"):
        disks(local_runs).disk(tmp_path)
    with pytest.raises(SourceError, match="No such file"):
        disks(local_runs).disk(tmp_path / "missing")


def test_a_disk_image_is_read_at_any_offset(local_runs, image):
    disks(local_runs).disk(image)
    data = image.read_bytes()
    chance = random.Random(3)
    with disks(local_runs).files() as files:
        disk = files.open(files.only())
        for _ in range(50):
            offset, length = chance.randrange(len(data) + 10), chance.randrange(3 * MIB)
            assert disk.read(offset, length) == data[offset : offset + length]


class TestAgainstAModel:
    """Random writes, holes and sizes: each recovery point keeps the content of its time."""

    step = st.tuples(st.integers(0, 9 * MIB), st.integers(0, 3 * MIB), st.sampled_from(["noise", "zeros", "truncate"]))

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(steps=st.lists(step, min_size=1, max_size=4), number=st.uuids())
    def test_each_recovery_point_has_the_disk_of_its_time(self, store, tmp_path, steps, number):
        runs = disks(Runs(store, f"model-{number}"))
        image = tmp_path / f"{number}.raw"
        image.touch()
        seen = {}
        for seed, (offset, length, what) in enumerate(steps):
            if what == "truncate":
                os.truncate(image, offset)
            else:
                write_at(image, offset, bytes(length) if what == "zeros" else noise(length, seed))
            runs.disk(image)
            seen[runs.runs.latest()] = image.read_bytes()
        for point, data in seen.items():
            with runs.files(point) as files:
                assert b"".join(file_parts(files.open(files.only()))) == data


@contextmanager
def loop_device(path):
    """A loop device on this file."""
    made = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    try:
        yield Path(made.stdout.strip())
    finally:
        subprocess.run(["losetup", "-d", made.stdout.strip()], check=True)


needs_loop = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists() or not shutil.which("losetup"),
    reason="loop devices need root, /dev/loop-control and losetup",
)


@needs_loop
def test_backup_and_restore_of_a_block_device(local_runs, image, tmp_path):
    os.truncate(image, 12 * MIB)
    target = tmp_path / "target.raw"
    target.write_bytes(noise(13 * MIB, 9))
    runs = disks(local_runs)
    with loop_device(image) as source:
        report, _ = runs.disk(source)
    assert report.file_bytes == 12 * MIB
    assert runs.content() == image.read_bytes()
    with loop_device(target) as device:
        report = runs.restore(device)
        assert report.new_bytes == 5 * MIB
        assert report.skipped == {f"{MIB} bytes at the end of the device were not changed": 1}
        assert runs.restore(device).new_bytes == 0
    assert target.read_bytes() == image.read_bytes() + noise(13 * MIB, 9)[12 * MIB :]


@needs_loop
def test_a_restore_does_not_write_to_a_device_that_is_too_small(local_runs, image, tmp_path):
    disks(local_runs).disk(image)
    target = tmp_path / "target.raw"
    target.write_bytes(noise(MIB))
    with loop_device(target) as device, pytest.raises(ConfigurationError, match="nothing was written"):
        disks(local_runs).restore(device)
    assert target.read_bytes() == noise(MIB)


@needs_loop
def test_unreadable_sectors_of_a_loop_device_are_issues(local_runs, image):
    """Reads of a loop device fail behind the new end of its shortened file."""
    os.truncate(image, 12 * MIB)
    data = image.read_bytes()
    with loop_device(image) as source:
        os.truncate(image, 4 * MIB)
        report, _ = disks(local_runs).disk(source)
    assert report.issue_count >= 1
    assert disks(local_runs).content() == data[: 4 * MIB] + bytes(8 * MIB)


# --- the reader of a disk ------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    (tmp_path / "image").write_bytes(DATA)
    return os.fsencode(tmp_path / "image")


def failing_at(sectors, code=errno.EIO):
    """Return a function that reads like os.preadv, but fails if a read touches one of these sectors."""

    def preadv(fd, buffers, offset):
        end = offset + len(buffers[0])
        if any(offset < (sector + 1) * SECTOR_BYTES and end > sector * SECTOR_BYTES for sector in sectors):
            raise OSError(code, os.strerror(code))
        return os.preadv(fd, buffers, offset)

    return preadv


@pytest.mark.parametrize(
    ("bad", "unread"),
    [
        ([], []),
        ([0], [(0, 512)]),
        ([1, 2], [(512, 1024)]),
        ([1, 3], [(512, 512), (1536, 512)]),
        ([SECTORS - 1], [(len(DATA) - 512, 512)]),
        (range(SECTORS), [(0, len(DATA))]),
    ],
)
def test_unreadable_sectors_are_zeros_and_their_offsets_are_returned(path, bad, unread):
    expected = bytearray(DATA)
    for sector in bad:
        expected[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = bytes(SECTOR_BYTES)
    with opened_disk(path, failing_at(bad)) as disk:
        assert disk.size == len(DATA)
        assert disk.read(0, len(DATA)) == (expected, unread)


def test_any_other_error_fails_the_read(path):
    with opened_disk(path, failing_at([1], errno.ENXIO)) as disk, pytest.raises(SourceError):
        disk.read(0, len(DATA))


def test_a_short_read_is_continued_and_a_shorter_disk_is_an_error(path):
    def one_byte(fd, buffers, offset):
        return os.preadv(fd, [buffers[0][:1]], offset)

    with opened_disk(path, one_byte) as disk:
        assert disk.read(256, 256) == (bytearray(range(256)), [])
        os.truncate(path, 300)
        with pytest.raises(SourceError, match="became shorter"):
            disk.read(256, 256)


def test_holes_are_skipped(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"x")
    with opened_disk(os.fsencode(path)) as disk:
        first = disk.next_data(0)
        assert first in (0, 4 << 20), "a file system without SEEK_DATA reports no hole"
        assert disk.next_data(4 << 20) == 4 << 20
        if first:
            assert disk.next_data(5 << 20) == disk.size


def test_a_fifo_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError, match="use --stdin to back up a stream"), opened_disk(bytes(tmp_path / "fifo")):
        pass


@pytest.mark.parametrize("name", [".", "none"])
def test_other_sources_are_refused(tmp_path, name):
    with pytest.raises(SourceError), opened_disk(bytes(tmp_path / name)):
        pass
