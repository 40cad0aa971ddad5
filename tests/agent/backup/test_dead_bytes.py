"""Dead bytes of content objects: an aged store is about as small as a fresh one, and every point stays complete."""

from __future__ import annotations

import errno
import os
import random
import shutil
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.agent.archive.chunks import CachedChunkPages, ChunkPages
from cryostore.agent.backup import incremental_base
from cryostore.agent.backup.incremental_base import (
    MERGED_BYTES_MAX,
    OBJECTS_MAX,
    REWRITE_DEAD_BYTES_MIN,
    live_chunks,
    objects_to_rewrite,
)
from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.entry import Content
from cryostore.agent.header import ContentObject, content_name
from cryostore.core.limits import KIB, MIB, Limits
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.model.chunks import Chunk
from cryostore.model.recovery_points import DeleteRecoveryPoint
from support.archives.agent import Runs, seen, write
from support.faults.refusing_source import RefusingSource
from support.stores.in_process import opened

COVERS = ("agent/backup/incremental_base.py",)


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def chunk(index, length):
    return Chunk(index=index, length=length, checksum="", checksum_algorithm="SHA256", chunk_token="")


def test_a_mostly_dead_object_is_rewritten():
    much = 4 * REWRITE_DEAD_BYTES_MIN
    assert objects_to_rewrite([ContentObject(1, much, much)]) == set()
    assert objects_to_rewrite([ContentObject(1, much, much // 2)]) == set()
    assert objects_to_rewrite([ContentObject(1, much, much // 2 - 1)]) == {1}
    assert objects_to_rewrite([ContentObject(1, REWRITE_DEAD_BYTES_MIN, 1)]) == set()  # too few dead bytes


def test_the_smallest_of_too_many_objects_are_rewritten():
    objects = [ContentObject(number, number * KIB, number * KIB) for number in range(1, OBJECTS_MAX + 2)]
    assert objects_to_rewrite(objects[:-1]) == set()
    assert objects_to_rewrite(objects) == set(range(1, OBJECTS_MAX // 2 + 2))
    large = [ContentObject(number, MERGED_BYTES_MAX, MERGED_BYTES_MAX) for number in range(1, OBJECTS_MAX + 2)]
    assert objects_to_rewrite(large) == {1}


def test_a_rewritten_object_is_dropped(runs, tmp_path):
    write(tmp_path / "source", {f"{n:03}": noise(40 * KIB, n) for n in range(192)})
    runs.backup(tmp_path / "source")
    for n in range(192):
        if n % 8:
            (tmp_path / "source" / f"{n:03}").unlink()
    runs.backup(tmp_path / "source")  # finds that most of it is dead, in chunks that other files still need
    opened = []
    report, _ = runs.backup(tmp_path / "source", before_read=opened.append)
    assert len(opened) == 24
    assert report.sent_bytes < 1500 * KIB  # the remaining files and a listing
    with runs.opened() as archive:
        assert [each.number for each in archive.header.objects] == [2]
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")
    assert runs.backup(tmp_path / "source")[1].same


def test_many_runs_leave_few_objects(local_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(incremental_base, "OBJECTS_MAX", 6)
    for number in range(15):
        write(tmp_path / "source", {f"file {number}": noise(1000, number)})
        local_runs.backup(tmp_path / "source")
        with local_runs.opened() as archive:
            assert len(archive.header.objects) <= 8
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_another_root_of_the_same_resource_reuses_the_content(local_runs, tmp_path):
    write(tmp_path / "one", {"file": noise(MIB, local_runs.resource), "small": noise(1000, local_runs.resource)})
    write(tmp_path / "two", {"file": noise(MIB, local_runs.resource), "small": noise(1000, local_runs.resource)})
    local_runs.backup(tmp_path / "one")
    report, _ = local_runs.backup(tmp_path / "two")
    assert (report.new, report.unchanged) == (2, 0)
    assert report.sent_bytes < 8 * KIB
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "two")


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_folders_come_and_go_anywhere(local_runs, tmp_path, where):
    name = {"first": "a", "middle": "m", "last": "z"}[where]
    write(tmp_path / "source", {each: {"x": {"file": each.encode()}} for each in "bny"})
    local_runs.backup(tmp_path / "source")
    write(tmp_path / "source", {name: {"x": {"file": b"new"}}})
    report, _ = local_runs.backup(tmp_path / "source")
    assert (report.new, report.unchanged) == (1, 3)
    for path in ("x/file", "x", ""):
        place = tmp_path / "source" / name / path
        place.unlink() if path.endswith("file") else place.rmdir()
    report, _ = local_runs.backup(tmp_path / "source")
    assert (report.new, report.unchanged) == (0, 3)
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(LENGTHS, st.lists(st.tuples(st.integers(0, 11), st.integers(0, 9), st.integers(1, 40)), max_size=6))
def test_a_chunk_is_live_if_it_holds_a_byte_of_a_file(lengths, files):
    ends = array("Q", bytes(8 * len(lengths)))
    needed = set()
    for first, offset, size in files:
        room = sum(lengths[first:])
        if first >= len(lengths) or offset >= lengths[first] or offset + size > room:
            continue
        ends[first] = max(ends[first], offset + size)
        at = 0
        for index in range(first, len(lengths)):
            if at < offset + size:
                needed.add(index)
            at += lengths[index]
    chunks = [chunk(index, length) for index, length in enumerate(lengths)]
    assert {each.index for each in live_chunks(chunks, ends)} == needed


def test_nothing_is_dropped_if_a_file_is_incomplete():
    chunks = [chunk(0, 10), chunk(1, 10), chunk(3, 10)]
    assert live_chunks(chunks, array("Q", [0, 15, 0, 0])) == chunks
    assert live_chunks(chunks, array("Q", [0, 0, 0, 11])) == chunks


def objects(runs):
    """The content objects of the newest point: by number, the indexes of their chunks."""
    with runs.opened() as archive:
        numbers = [each.number for each in archive.header.objects]
        return {number: [each.index for each in archive.object_chunks(content_name(number))] for number in numbers}


def test_chunks_that_no_file_needs_are_left_out_of_the_next_point(runs, tmp_path):
    write(tmp_path / "source", {f"{n:02}": noise(700 * KIB, n) for n in range(12)})
    write(tmp_path / "source", {f"small {n}": noise(9 * KIB, n) for n in range(10)})
    runs.backup(tmp_path / "source")
    before, first = objects(runs), runs.latest()
    was = seen(tmp_path / "source")
    for n in (0, 1, 2, 5, 9):
        (tmp_path / "source" / f"{n:02}").unlink()
    report, _ = runs.backup(tmp_path / "source")
    assert report.sent_bytes < 256 * KIB
    after = objects(runs)
    assert set(after[1]) < set(before[1])
    assert len(after[1]) <= len(before[1]) - 5
    assert runs.backup(tmp_path / "source")[1].same
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")
    runs.restore(tmp_path / "first", first)
    assert seen(tmp_path / "first") == was


def test_a_trimmed_object_is_read_from_any_place_and_trimmed_again(tmp_path):
    with opened(tmp_path / "data", limits=Limits(page_items_max=5)) as store:
        runs = Runs(store)
        for round_ in range(4):
            names = [f"{n:03}" for n in range(60) if n % 7 >= round_]
            write(tmp_path / "source", {name: noise(150 * KIB, name) for name in names})
            for path in (tmp_path / "source").iterdir():
                if path.name not in names:
                    path.unlink()
            runs.backup(tmp_path / "source")
        indexes = objects(runs)[1]
        assert len(indexes) == len(names) < indexes[-1]
        with runs.opened() as archive:
            for order in (indexes, indexes[::-1], random.Random(1).sample(indexes, len(indexes))):
                for pages in (ChunkPages(archive), CachedChunkPages(archive)):
                    for index in order:
                        assert next(iter(pages.from_chunk(1, index))).index == index
        runs.restore(tmp_path / "target")
        assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_file_that_changes_shares_no_chunk(local_runs, tmp_path):
    contents = {f"{n}": noise(20 * KIB, n) for n in range(8)}
    write(tmp_path / "source", contents)
    local_runs.backup(tmp_path / "source")
    assert objects(local_runs) == {1: [0]}
    write(tmp_path / "source", {f"{n}": noise(20 * KIB, 100 + n) for n in range(3)})
    local_runs.backup(tmp_path / "source")
    assert objects(local_runs) == {1: [0], 2: [0, 1, 2]}
    with local_runs.opened() as archive:
        places = [Content.unpack(block.contents, n) for block in archive.blocks() for n in range(block.entries)]
    assert {each.offset for each in places if each.object_number == 2} == {0}


class Churn:
    """A tree that changes at random between runs. Some of its recovery points are kept."""

    def __init__(self, folder, seed):
        self.chance = random.Random(seed)
        self.folder = folder / "source"
        self.names = []
        self.kept = []
        for _ in range(80):
            self.add()

    def size(self):
        kind = self.chance.random()
        if kind < 0.5:
            return self.chance.randrange(20 * KIB)
        return self.chance.randrange(400 * KIB) if kind < 0.93 else self.chance.randrange(600 * KIB, 3000 * KIB)

    def add(self):
        name = f"{len(self.names)} {self.chance.getrandbits(40)}"
        self.names.append(name)
        self.change(name)

    def change(self, name):
        write(self.folder, {name: self.chance.randbytes(self.size())})

    def step(self):
        for name in self.chance.sample(self.names, len(self.names) // 8):
            kind = self.chance.random()
            if kind < 0.2:
                (self.folder / name).unlink()
                self.names.remove(name)
            elif kind < 0.8:
                self.change(name)
            else:
                self.add()


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stored_bytes(store):
    return sum(path.stat().st_size for path in store.packs())


@pytest.mark.parametrize("seed", [1, 2])
def test_an_aged_store_is_about_as_small_as_a_fresh_one(tmp_path, seed):
    churn = Churn(tmp_path, seed)
    with opened(tmp_path / "aged") as aged, opened(tmp_path / "fresh") as fresh:
        runs = Runs(aged)
        for number in range(16):
            churn.step()
            runs.backup(churn.folder)
            shutil.copytree(churn.folder, tmp_path / f"{number}", symlinks=True)
            churn.kept.append((runs.latest(), tmp_path / f"{number}"))
            while len(churn.kept) > 4:
                point, copy = churn.kept.pop(churn.chance.randrange(3))
                aged.call(DeleteRecoveryPoint(backup_vault_name="Default", recovery_point_arn=point))
                shutil.rmtree(copy)
            if number % 5 == 0:
                collect_all(aged.service.context, quarantine_ms=0)
        aged.maintain()
        for _ in range(2):
            collect_all(aged.service.context, quarantine_ms=0)
        anew = Runs(fresh)
        for number, (point, copy) in enumerate(churn.kept):
            runs.restore(tmp_path / "restored" / f"{number}", point)
            assert contents_of(tmp_path / "restored" / f"{number}") == contents_of(copy)
            shutil.rmtree(churn.folder)
            shutil.copytree(copy, churn.folder, symlinks=True)
            anew.backup(churn.folder)
        assert stored_bytes(aged) <= 1.10 * stored_bytes(fresh)


def small_files(names):
    return {f"small {n:03}": noise(9 * KIB, n) for n in names}


def test_the_files_of_a_mostly_dead_chunk_are_stored_again(runs, tmp_path):
    source = tmp_path / "source"
    write(source, {"large": noise(6000 * KIB)} | small_files(range(300)))
    runs.backup(source)
    was, first = seen(source), runs.latest()
    for n in range(300):
        if n % 4:
            (source / f"small {n:03}").unlink()
    assert runs.backup(source)[0].sent_bytes < 256 * KIB  # finds what is dead
    opened = []
    report, _ = runs.backup(source, before_read=opened.append)
    assert sorted(map(bytes, opened)) == [f"small {n:03}".encode() for n in range(0, 300, 4)]
    assert report.sent_bytes < 75 * 9 * KIB + 256 * KIB
    with runs.opened() as archive:
        held = sum(each.content_bytes for each in archive.header.objects)
        assert held == sum(each.live_bytes for each in archive.header.objects)
    assert runs.backup(source)[1].same
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(source)
    runs.restore(tmp_path / "first", first)
    assert seen(tmp_path / "first") == was


@pytest.mark.parametrize("bound", [100 * KIB, 1200 * KIB])
def test_a_run_moves_no_more_than_its_limit(local_runs, tmp_path, monkeypatch, bound):
    monkeypatch.setattr(incremental_base, "MOVED_BYTES_MIN", bound)
    source = tmp_path / "source"
    write(source, small_files(range(900)))
    local_runs.backup(source)
    for n in range(900):
        if n % 3:
            (source / f"small {n:03}").unlink()
    local_runs.backup(source)
    monkeypatch.setattr(incremental_base, "objects_to_rewrite", lambda _: frozenset())
    moved = []
    for _ in range(6):
        report, outcome = local_runs.backup(source, before_read=moved.append)
        assert report.sent_bytes <= bound + 256 * KIB
        if outcome.same:
            break
    assert len(moved) == len(set(moved)) == (0 if bound < 300 * KIB else 300)
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(source)


class Aged:
    """A store with a tree whose unchanged files the next run reads only to store them again."""

    def __init__(self, folder, store, secrecy):
        key = None if secrecy == "plain" else AgentKey.generate()
        self.store = store
        self.reader = Runs(store, "tree", key)
        self.runs = (
            Runs(store, "tree", PublicKey(key.public), folder / "state") if secrecy == "write-only" else self.reader
        )
        self.source, self.target = folder / "source", folder / "target"
        self.points = []

    def backup(self, **options):
        report, _ = self.runs.backup(self.source, **options)
        self.points.append(self.reader.latest())
        return report

    def make(self, length, count, every):
        write(self.source, {"large": noise(2000 * KIB)} | {f"{n:03}": noise(length, n) for n in range(count)})
        os.setxattr(self.source / "000", "user.note", b"note")
        os.link(self.source / "000", self.source / "a link")
        self.backup()
        for n in range(count):
            if n % every:
                (self.source / f"{n:03}").unlink()
        self.backup()  # finds what is dead

    def check(self):
        """Check that the newest point has the whole tree, even as the only point after garbage collection."""
        *old, latest = dict.fromkeys(self.points)
        for point in old:
            self.store.call(DeleteRecoveryPoint(backup_vault_name="Default", recovery_point_arn=point))
        for _ in range(2):
            collect_all(self.store.service.context, quarantine_ms=0)
        assert self.reader.restore(self.target, latest).issue_count == 0
        assert seen(self.target) == seen(self.source)
        shutil.rmtree(self.target)
        self.points = [latest]


MOVING = {"a sparse chunk": (9 * KIB, 300, 4), "an object to rewrite": (40 * KIB, 192, 8)}
AGED = [
    ("a sparse chunk", "plain"),
    ("a sparse chunk", "sealed"),
    ("an object to rewrite", "plain"),
    ("an object to rewrite", "sealed"),
    ("an object to rewrite", "write-only"),
]
UNREADABLE = [("open", errno.EACCES), ("readv", errno.EIO), ("getxattr", errno.EIO)]


@pytest.mark.parametrize(("call", "number"), UNREADABLE, ids=["open", "read", "attribute"])
@pytest.mark.parametrize(("moving", "secrecy"), AGED)
def test_an_unchanged_file_that_cannot_be_stored_again_is_kept(tmp_path, moving, call, number, secrecy):
    if call == "getxattr" and secrecy == "write-only":
        pytest.skip("the state holds no attributes")
    with opened(tmp_path / "data") as store:
        aged = Aged(tmp_path, store, secrecy)
        aged.make(*MOVING[moving])
        source = RefusingSource(aged.source / "000", call, number, -1)
        with source.refusing():
            report = aged.backup()
        assert source.refused
        assert [issue.path for issue in report.issues] == [b"000"]
        assert "its copy in the last recovery point is kept" in report.issues[0].reason
        aged.check()
        assert aged.backup().issue_count == 0
        aged.check()


def test_if_no_file_can_be_read_all_unchanged_ones_are_kept(tmp_path, monkeypatch):
    with opened(tmp_path / "data") as store:
        aged = Aged(tmp_path, store, "plain")
        aged.make(*MOVING["a sparse chunk"])
        with monkeypatch.context() as patched:
            patched.setattr(os, "readv", refused)
            report = aged.backup()
        assert report.issue_count == 75
        aged.check()


def test_an_unchanged_file_that_is_removed_before_it_is_stored_again_is_not_kept(tmp_path):
    with opened(tmp_path / "data") as store:
        aged = Aged(tmp_path, store, "plain")
        aged.make(*MOVING["a sparse chunk"])
        with RefusingSource(aged.source / "008", "open", errno.ENOENT, -1).refusing():
            report = aged.backup()
        assert [(issue.path, issue.reason) for issue in report.issues] == [(b"008", os.strerror(errno.ENOENT))]
        (aged.source / "008").unlink()
        os.utime(aged.source, ns=(0, 0))
        aged.reader.restore(aged.target)
        os.utime(aged.target, ns=(0, 0))
        assert seen(aged.target) == seen(aged.source)


def refused(*_):
    raise OSError(errno.EIO, os.strerror(errno.EIO))
