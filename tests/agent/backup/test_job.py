"""Damaged incremental base: the next run of the same tree sends the lost bytes again, which repairs older points."""

from __future__ import annotations

import os
import random
from contextlib import closing

import pytest

from cryostore.agent.archive.chunks import ChunkCache
from cryostore.agent.archive.files import ArchiveFiles
from cryostore.agent.archive.recovery_points import find_point
from cryostore.agent.backup.key_changes import change_access
from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.report import Report
from cryostore.agent.verification.archive_check import fetch_known_damage, verify_archive
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from cryostore.core.limits import KIB, MIB
from cryostore.core.time import wall_clock
from cryostore.model.errors import DamagedDataException
from support.archives.agent import Runs, seen, write
from support.archives.single_file import disks, streams
from support.faults.damaging import scrubbed
from support.stores.in_process import opened


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


@pytest.fixture
def store(tmp_path):
    """A separate store, which the tests damage."""
    with opened(tmp_path / "data", clock=wall_clock) as store:
        yield store


@pytest.fixture
def key():
    return AgentKey.generate()


@pytest.fixture(params=["plain", "sealed"])
def runs(request, store, key):
    return Runs(store, "tree", key if request.param == "sealed" else None)


@pytest.fixture
def source(tmp_path):
    tree = {
        "large": noise(6 * MIB),
        "folder": {f"{n:03}": noise(20 * KIB, n) for n in range(200)},
        "z": noise(2 * MIB, 2),
    }
    write(tmp_path / "source", tree)
    return tmp_path / "source"


def corrupt(store, runs, name, which=0, point="latest"):
    """Flip a bit of a chunk of an object in the packs, and let scrub find the damage."""
    with runs.opened(point) as archive:
        digest = bytes.fromhex(list(archive.stored_object_chunks(name))[which].checksum)
    flip(store, digest)


def flip(store, digest):
    def look(transaction):
        return transaction.row(
            "SELECT name, pack_offset, sealed_length FROM chunk JOIN pack ON pack.pack_number = chunk.pack_number"
            " WHERE digest = :digest",
            digest=digest,
        )

    name, offset, length = store.service.context.database.read(look)
    (path,) = [path for path in store.data_dir.rglob("*") if name in path.name and path.is_file()]
    with path.open("r+b") as file:
        file.seek(offset + length - 1)
        byte = file.read(1)[0]
        file.seek(offset + length - 1)
        file.write(bytes([byte ^ 1]))
    scrubbed(store.service.context)


def is_sound(runs, point):
    report = Report()
    with runs.opened(point) as archive:
        verify_archive(archive, report, data=True)
    return report.issue_count == 0


def known_damage(runs, point):
    """The paths that verify reports without --data, from the damage that the store knows."""
    report = Report()
    with runs.opened(point) as archive:
        verify_archive(archive, report, data=False, damage=fetch_known_damage(runs.call, find_point(runs.call, point)))
    return {issue.path for issue in report.issues}


def test_verify_names_the_files_of_known_damage_without_reading(store, runs, source):
    runs.backup(source)
    first = runs.latest()
    assert known_damage(runs, first) == set()
    corrupt(store, runs, "content-00000001", 0)  # not the last: a sealed object ends with the table of all its chunks
    affected = known_damage(runs, first)
    assert affected
    assert affected < {b"large", b"z", *(b"folder/%03d" % number for number in range(200))}
    runs.backup(source)
    assert known_damage(runs, first) == known_damage(runs, "latest") == set()


@pytest.mark.parametrize("which", [1, -1])
def test_a_run_of_the_same_tree_repairs_all_points(store, runs, source, tmp_path, which):
    runs.backup(source)
    first = runs.latest()
    corrupt(store, runs, "content-00000001", which)
    assert not is_sound(runs, first)
    assert 0 < runs.restore(tmp_path / "rescued").issue_count < 204
    assert not [name for name in os.listdir(tmp_path / "rescued") if name.startswith(".cryo")]
    report, outcome = runs.backup(source)
    assert (report.damaged_objects, report.issue_count) == (1, 0)
    assert report.sent_bytes < 5 * MIB
    assert outcome.recovery_point_arn != first
    assert is_sound(runs, first)
    assert is_sound(runs, "latest")
    assert runs.restore(tmp_path / "target").issue_count == 0
    assert seen(tmp_path / "target") == seen(source)
    report, outcome = runs.backup(source)
    assert (report.damaged_objects, report.read_bytes, outcome.same) == (0, 0, True)


def test_of_several_objects_only_the_damaged_one_is_read_again(store, runs, source, tmp_path):
    runs.backup(source)
    write(source, {"new": noise(3 * MIB, 3)})
    runs.backup(source)
    second = runs.latest()
    corrupt(store, runs, "content-00000002")
    read = []
    report, _ = runs.backup(source, before_read=read.append)
    assert (report.damaged_objects, read) == (1, [b"new"])
    assert is_sound(runs, second)
    assert is_sound(runs, "latest")


def test_files_that_have_changed_are_not_repaired_and_the_new_point_is_complete(store, runs, source, tmp_path):
    runs.backup(source)
    corrupt(store, runs, "content-00000001")
    write(source, {"large": noise(6 * MIB, 9), "folder": {"000": b"changed"}})
    report, _ = runs.backup(source)
    assert report.damaged_objects == 1
    assert is_sound(runs, "latest")
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(source)


def test_a_damaged_listing_does_not_block_the_next_run(store, runs, source, tmp_path):
    runs.backup(source)
    first = runs.latest()
    corrupt(store, runs, "catalog")
    with pytest.raises(DamagedDataException):
        is_sound(runs, first)
    report, outcome = runs.backup(source)
    assert report.damaged_objects >= 1
    assert outcome.base_arn is None
    assert is_sound(runs, "latest")
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(source)
    report, outcome = runs.backup(source)
    assert (report.damaged_objects, outcome.same) == (0, True)


def test_an_encrypted_resource_stays_encrypted_whatever_is_damaged(store, source, key):
    sealed = Runs(store, "tree", key)
    sealed.backup(source)
    corrupt(store, sealed, "catalog")
    with pytest.raises(KeyUnavailableError):
        Runs(store, "tree").backup(source)
    with pytest.raises(ConfigurationError, match="damaged"):
        change_access(sealed.keyed_call, find_point(store, "latest"), lambda access: access.rotate())
    sealed.backup(source)
    assert is_sound(sealed, "latest")


def test_a_write_only_machine_sends_damaged_data_again(store, source, key, tmp_path):
    writer = Runs(store, "tree", PublicKey(key.public), tmp_path / "state")
    reader = Runs(store, "tree", key)
    writer.backup(source)
    corrupt(store, reader, "content-00000001", 1)
    report, _ = writer.backup(source)
    assert report.damaged_objects == 1
    assert is_sound(reader, "latest")
    reader.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(source)


@pytest.mark.parametrize("which", [0, -1])
def test_a_stream_repairs_the_data_that_it_sends_again(store, runs, which):
    """The last chunk of a sealed object is its table."""
    streams(runs).stream(noise(6 * MIB))
    first = runs.latest()
    corrupt(store, runs, "content-00000001", which)
    report, _ = streams(runs).stream(noise(6 * MIB))
    assert report.damaged_objects == 1
    assert is_sound(runs, first)
    assert is_sound(runs, "latest")


def test_a_damaged_segment_of_a_disk_is_sent_again(store, runs, tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(noise(3 * MIB) + bytes(MIB) + noise(4 * MIB, 2))
    disks(runs).disk(path)
    first = runs.latest()
    corrupt(store, runs, "disk-00000000", 1)
    report, _ = disks(runs).disk(path)
    assert report.damaged_objects == 1
    assert MIB <= report.sent_bytes < 2 * MIB
    assert is_sound(runs, first)
    assert is_sound(runs, "latest")


# --- chunks that several files share ----------------------------------------------------------------------------------


def shared(runs, tmp_path):
    """Back up small files that share a chunk, then all but one. Return the source and both recovery points."""
    folder = tmp_path / "shared"
    write(folder, {name: noise(20 * KIB, number) for number, name in enumerate("abc")})
    runs.backup(folder)
    first = runs.latest()
    (folder / "c").unlink()
    runs.backup(folder)
    return folder, first, runs.latest()


def issues(runs, point, **options):
    report = Report()
    with runs.opened(point) as archive:
        verify_archive(archive, report, **options)
    return sorted(issue.path for issue in report.issues)


def test_existing_files_are_repaired_although_another_file_of_their_chunk_is_gone(store, runs, tmp_path):
    """They are sound in all points and for all readers. Only the point that has the removed file reports that file."""
    folder, first, second = shared(runs, tmp_path)
    corrupt(store, runs, "content-00000001")
    assert issues(runs, second, data=True) == [b"a", b"b"]
    assert issues(runs, first, data=True) == [b"a", b"b", b"c"]
    runs.backup(folder)
    for point, lost in ((first, [b"c"]), (second, []), (runs.latest(), [])):
        assert issues(runs, point, data=True) == lost
        damage = fetch_known_damage(runs.call, find_point(runs.call, point))
        assert issues(runs, point, data=False, damage=damage) == lost
        target = tmp_path / point[-12:]
        report = runs.restore(target, point)
        assert [issue.path for issue in report.issues] == lost
        assert seen(target)[b"a"] == seen(folder)[b"a"]
        assert seen(target)[b"b"] == seen(folder)[b"b"]
        with runs.opened(point) as archive, closing(ChunkCache()) as cache:
            files = ArchiveFiles(archive, cache)
            assert files.open(files.file("b")).read(5, 100) == noise(20 * KIB, 1)[5:105]


def test_a_copy_that_differs_or_is_damaged_is_not_used(store, runs, tmp_path):
    folder, _, second = shared(runs, tmp_path)
    corrupt(store, runs, "content-00000001")
    (folder / "a").write_bytes(noise(20 * KIB, 9))
    runs.backup(folder)
    assert issues(runs, second, data=True) == [b"a"]
    corrupt(store, runs, "content-00000002", 1)  # the chunk of b, because a changed file has its own chunk
    assert issues(runs, second, data=True) == [b"a", b"b"]
