"""Mutated archives: a restore succeeds after a clean verification, and damage costs only the affected entries."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostore.agent.archive.chunks import ChunkCache
from cryostore.agent.archive.files import ArchiveFiles
from cryostore.agent.archive.listing import archive_entries
from cryostore.agent.block import Extra, ExtraKind, Kind, encode
from cryostore.agent.entry import NO_CONTENT, Content, Row
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.header import DISK, DiskLayout
from cryostore.agent.report import Report
from cryostore.agent.restore.single_file_restore import SingleFileRestoreOptions as FileOptions
from cryostore.agent.restore.single_file_restore import restore_file
from cryostore.agent.verification.archive_check import verify_archive
from cryostore.core.limits import MIB
from support.archives.agent import Runs, write
from support.archives.made_archive import plain_header, put

NUMBERS = itertools.count(1)
FOLDER, FILE, LINK, FIFO, DEVICE = 0o040755, 0o100644, 0o120777, 0o010644, 0o020666
CHUNKS = [b"first chunk", b"second chunk"]
TARGET = Extra(ExtraKind.LINK_TARGET, b"target")
NULL = Extra(ExtraKind.DEVICE_NUMBER, bytes([1, 0, 0, 0, 3, 0, 0, 0]))
NOTE = Extra(ExtraKind.XATTR, b"user.note\0value")
REFUSED = "attribute 'user.note' cannot be set: Operation not permitted"


def row(mode, size=0, *, links=1, inode=7, uid=0, mtime_ns=10**18):
    return Row(mode, uid, 0, 0 if stat.S_ISDIR(mode) else links, 0, size, mtime_ns, 10**18, inode)


def model():
    """The blocks of a sound archive: kind, path, and entries by name as row, content, extras."""
    nothing = (NO_CONTENT, [])
    return [
        [Kind.ROOT, b"", {b"": (row(FOLDER), *nothing)}],
        [
            Kind.DIRECTORY,
            b"",
            {
                b"a": (row(FOLDER), NO_CONTENT, [NOTE]),
                b"b": (row(FOLDER), *nothing),
                b"file": (row(FILE, 11), Content(1, 0, 0), [NOTE]),
                b"long": (row(FILE, 20), Content(1, 0, 0), []),
                b"link": (row(LINK), NO_CONTENT, [TARGET]),
                b"null": (row(DEVICE), NO_CONTENT, [NULL]),
            },
        ],
        [Kind.DIRECTORY, b"a", {b"a": (row(FOLDER), *nothing), b"fifo": (row(FIFO), *nothing)}],
        [Kind.DIRECTORY, b"a/a", {b"deep": (row(FILE, 5), Content(1, 1, 7), [])}],
        [
            Kind.DIRECTORY,
            b"b",
            {
                b"one": (row(FILE, 6, links=2, inode=9), Content(1, 1, 0), []),
                b"two": (row(FILE, 6, links=2, inode=9), Content(1, 1, 0), []),
            },
        ],
    ]


INDEX = st.integers(0, 20)
SIZES = st.sampled_from([0, 1, 11, 12, 23, 24, 1 << 40, -1, -(1 << 63)])
MODES = st.sampled_from([FOLDER, FILE, LINK, FIFO, DEVICE, 0o060660, 0o140777, 0o777, 0, 0o104755, 0xFFFF_FFFF])
CONTENTS = st.builds(Content, st.integers(0, 2), st.integers(0, 3), st.sampled_from([0, 1, 11, 12, 2**32 - 1]))
EXTRAS = st.lists(
    st.one_of(
        st.sampled_from([TARGET, NULL, NOTE, Extra(ExtraKind.LINK_TARGET, b""), Extra(ExtraKind.LINK_TARGET, b"a\0b")]),
        st.sampled_from([Extra(ExtraKind.LINK_TARGET, b"t" * 5000), Extra(ExtraKind.DEVICE_NUMBER, b"\xff" * 8)]),
        st.sampled_from([Extra(ExtraKind.XATTR, b"user.x"), Extra(ExtraKind.XATTR, b"\0v"), Extra(99, b"new")]),
        st.builds(
            lambda offset, length: Extra(ExtraKind.HOLES, offset.to_bytes(8, "little") + length.to_bytes(8, "little")),
            st.integers(0, 12),
            st.sampled_from([0, 1, 6, 11, 2**63]),
        ),
    ),
    max_size=2,
)
PATHS = st.sampled_from([b"", b"a", b"a/a", b"b", b"c", b"c/d", b"file", b"link", b"a/a/a"])
NAMES = st.sampled_from([b"a", b"b", b"z", b"file", b"fifo", b"..", b"", b"x/y"])
MUTATIONS = st.one_of(
    st.tuples(st.just("drop block"), INDEX),
    st.tuples(st.just("swap blocks"), INDEX, INDEX),
    st.tuples(st.just("repeat block"), INDEX),
    st.tuples(st.just("move block"), INDEX, PATHS),
    st.tuples(st.just("drop entry"), INDEX, INDEX),
    st.tuples(st.just("rename entry"), INDEX, INDEX, NAMES),
    st.tuples(st.just("mode"), INDEX, INDEX, MODES),
    st.tuples(st.just("size"), INDEX, INDEX, SIZES),
    st.tuples(st.just("content"), INDEX, INDEX, CONTENTS),
    st.tuples(st.just("extras"), INDEX, INDEX, EXTRAS),
    st.tuples(st.just("mtime_ns"), INDEX, INDEX, st.sampled_from([-(1 << 63), (1 << 63) - 1, 0])),
    st.tuples(st.just("uid"), INDEX, INDEX, st.sampled_from([1234, 2**31, 2**32 - 2])),
    st.tuples(st.just("links"), INDEX, INDEX, st.sampled_from([0, 2, 2**32 - 1])),
    st.tuples(st.just("inode"), INDEX, INDEX, st.sampled_from([0, 9, 2**64 - 1])),
)


def mutate(blocks, mutation):
    kind, number, *what = mutation
    if not blocks:
        return
    place = number % len(blocks)
    block = blocks[place]
    if kind == "drop block":
        del blocks[place]
    elif kind == "swap blocks":
        other = what[0] % len(blocks)
        blocks[place], blocks[other] = blocks[other], block
    elif kind == "repeat block":
        blocks.insert(place, [block[0], block[1], dict(block[2])])
    elif kind == "move block":
        block[1] = what[0]
    elif block[2]:
        mutate_entry(block[2], kind, *what)


def mutate_entry(found, kind, number, value=None):
    name = list(found)[number % len(found)]
    row, content, extras = found.pop(name)
    if kind == "rename entry":
        found[value] = (row, content, extras)
    elif kind == "content":
        found[name] = (row, value, extras)
    elif kind == "extras":
        found[name] = (row, content, value)
    elif kind != "drop entry":
        found[name] = (row._replace(**{kind: value}), content, extras)


def encoded(blocks):
    """The chunks of a listing, one block in each, and a header with the matching counts."""
    chunks = []
    for kind, path, found in blocks:
        names = b"".join(name + b"\0" for name in sorted(found))
        rows, contents, extras = zip(*(found[name] for name in sorted(found)), strict=True) if found else ((), (), ())
        chunks.append(
            encode(
                kind,
                path,
                names,
                [each.pack() for each in rows],
                [each.pack() for each in contents],
                {index: each for index, each in enumerate(extras) if each},
            )
        )
    all_rows = [entry[0] for _, _, found in blocks for entry in found.values()]
    files = [each for each in all_rows if each.is_file]
    return chunks, plain_header(len(all_rows), len(files), sum(each.size for each in files))


def refuses_attributes(blocks):
    """Whether Linux refuses an attribute `user.*`: it allows them for regular files and directories only."""
    rows = [row for _, _, found in blocks for row, _, extras in found.values() if NOTE in extras]
    return not all(row.is_file or row.is_directory for row in rows)


def story(store, mutations):
    folder = Path(tempfile.mkdtemp(prefix="cryo-mutated-"))
    runs = Runs(store, f"mutated-{next(NUMBERS)}")
    try:
        blocks = model()
        for mutation in mutations:
            mutate(blocks, mutation)
        chunks, header = encoded(blocks)
        put(runs, chunks or [b""], header=header, chunks=CHUNKS)
        verified, data = Report(), Report()
        try:
            with runs.opened() as archive:
                verify_archive(archive, verified, data=False)
                verify_archive(archive, data, data=True)
                paths = []
                listed = Report()
                for block in archive.blocks(listed.issue):
                    paths += [block.path + b"/" + name if block.path else name for name in block.name_list() if name]
        except ArchiveDamagedError:
            with pytest.raises(ArchiveDamagedError):
                runs.restore(folder / "target")
            return
        assert data.issue_count >= verified.issue_count  # it compares digests too
        report = runs.restore(folder / "target")
        if not verified.issue_count:
            refusals = [issue for issue in report.issues if issue.reason.startswith(REFUSED)]
            assert report.issues == refusals[: refuses_attributes(blocks)]
        told = {issue.path for issue in verified.issues} | {issue.path for issue in report.issues}
        for path in paths:
            if told.isdisjoint({path, *(path[:at] for at in range(len(path)) if path[at : at + 1] == b"/")}):
                assert os.path.lexists(os.path.join(os.fsencode(folder / "target"), path)), (path, told)
    finally:
        shutil.rmtree(folder)


@settings(max_examples=60)
@given(st.lists(MUTATIONS, max_size=2))
def test_an_archive_without_issues_can_be_restored(store, mutations):
    story(store, mutations)


@pytest.mark.stress
@settings(max_examples=1000)
@given(st.lists(MUTATIONS, max_size=4))
def test_an_archive_without_issues_can_be_restored_at_length(store, mutations):
    story(store, mutations)


def test_only_the_restore_reports_attributes_that_linux_refuses_for_special_files(local_runs, tmp_path):
    """Another operating system may allow them, so the archive is not damaged."""
    blocks = model()
    blocks[1][2][b"null"][2].append(NOTE)
    blocks[1][2][b"link"][2].append(NOTE)
    blocks[2][2][b"fifo"] = (row(FIFO), NO_CONTENT, [NOTE])
    chunks, header = encoded(blocks)
    put(local_runs, chunks, header=header, chunks=CHUNKS)
    verified = Report()
    with local_runs.opened() as archive:
        verify_archive(archive, verified, data=True)
    assert verified.issues == []
    for overwrite in ("never", "always"):
        report = local_runs.restore(tmp_path / "target", overwrite=overwrite)
        assert [(issue.path, issue.reason) for issue in report.issues] == [(b"link", f"{REFUSED} (and for 2 more)")]
    paths = {
        os.path.relpath(os.path.join(place, name), tmp_path / "target")
        for place, below, names in os.walk(tmp_path / "target")
        for name in below + names
    }
    assert paths == {"a", "a/a", "a/a/deep", "a/fifo", "b", "b/one", "b/two", "file", "link", "long", "null"}


@pytest.mark.parametrize("lost", [b"", b"a", b"a/a"], ids=["the root", "a folder", "a folder below"])
@pytest.mark.parametrize("part", [False, True])
def test_folders_without_an_entry_are_reported_and_restored(local_runs, tmp_path, lost, part):
    blocks = model()
    parent, _, name = lost.rpartition(b"/")
    for block in blocks:
        if block[1] == parent and (block[0] == Kind.ROOT) == (not lost):
            del block[2][name]
    chunks, header = encoded(blocks)
    put(local_runs, chunks, header=header, chunks=CHUNKS)
    with local_runs.opened() as archive:
        report = Report()
        verify_archive(archive, report, data=True)
        assert [issue.path for issue in report.issues] == [lost]
        assert b"a/a/deep" in {entry.path for entry in archive_entries(archive)}
    write(tmp_path / "target" / ("" if part else "a"), {"a": {"other": b"other"}})
    path = (lost or b"a") if part else b""
    report = local_runs.restore(tmp_path / "target", path=path, delete=True)
    below = {b"": "a/a/deep", b"a": "a/deep", b"a/a": "deep"}[path]
    assert (tmp_path / "target" / below).read_bytes() == b"chunk"
    assert report.issue_count == (0 if part and not lost else 2)
    kept = tmp_path / "target" / ("a/other" if part else "a/a/other")
    assert kept.exists() == (report.issue_count > 0)  # an unlisted entry may have been backed up


def test_a_lost_chunk_of_the_listing_costs_only_its_entries(local_runs, tmp_path):
    chunks, header = encoded(model())
    chunks[2] = chunks[2][:-1]
    put(local_runs, chunks, header=header, chunks=CHUNKS)
    report = local_runs.restore(tmp_path / "target")
    assert [issue.path for issue in report.issues] == [b"", b"a/a"]
    assert (tmp_path / "target" / "a" / "a" / "deep").read_bytes() == b"chunk"
    assert not (tmp_path / "target" / "a" / "fifo").exists()


LAYOUTS = {
    "2^70 bytes": DiskLayout(2**70, 1 << 20, 1 << 24, []),
    "blocks that no chunk holds": DiskLayout(2**40, 1 << 40, 1 << 40, []),
    "a segment behind the end": DiskLayout(10, 4, 8, [], [0, 7]),
    "a segment twice": DiskLayout(100, 4, 8, [], [0, 0]),
    "a segment before the beginning": DiskLayout(100, 4, 8, [], [-1]),
}


def disk(runs, layout, size):
    """Commit the archive of a disk that has no stored block."""
    chunks, _ = encoded([model()[0], [Kind.DIRECTORY, b"", {b"disk": (row(FILE, size), NO_CONTENT, [])}]])
    put(runs, chunks, header=plain_header(2, 1, size, kind=DISK, disk=layout), kind=DISK)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_an_impossible_disk_layout_is_refused(local_runs, tmp_path, layout):
    disk(local_runs, layout, 10)
    with local_runs.opened() as archive:
        with pytest.raises(ArchiveDamagedError):
            verify_archive(archive, Report(), data=True)
        assert restored(archive, tmp_path / "disk").issue_count == 1
    assert not (tmp_path / "disk").exists()


def restored(archive, target):
    cache = ChunkCache()
    files = ArchiveFiles(archive, cache)
    try:
        restore_file(files, files.only(), FileOptions(target=os.fsencode(target)), report := Report())
    finally:
        cache.close()
    return report


def test_a_disk_with_tiny_segments_is_read_quickly(local_runs, tmp_path):
    disk(local_runs, DiskLayout(2**40, 1, 1, []), 2**40)
    with local_runs.opened() as archive:
        report = Report()
        verify_archive(archive, report, data=True)
        assert report.issue_count == 0
        assert restored(archive, tmp_path / "disk").file_bytes == 2**40
    assert (tmp_path / "disk").stat().st_size == 2**40
    assert (tmp_path / "disk").stat().st_blocks * 512 < MIB


def test_a_disk_whose_size_differs_from_its_file_is_an_issue(local_runs):
    disk(local_runs, DiskLayout(2 * MIB, MIB, MIB, []), MIB)
    with local_runs.opened() as archive:
        report = Report()
        verify_archive(archive, report, data=False)
    assert report.issue_count == 1


@pytest.mark.parametrize("name", ["a\0b", "x" * 100_000, "\ud800"], ids=["a zero byte", "long", "no UTF-8"])
def test_impossible_owner_names_are_ignored(local_runs, tmp_path, name):
    chunks, _ = encoded(model())
    header = plain_header(13, 5, 48)
    escaped = name.encode("ascii", "backslashreplace").replace(b"\\x00", b"\\u0000").replace(b"\0", b"\\u0000")
    put(local_runs, chunks, header=header.replace(b'"users":{}', b'"users":{"0":"' + escaped + b'"}'), chunks=CHUNKS)
    try:
        assert local_runs.restore(tmp_path / "target").issue_count == 0
    except ArchiveDamagedError as error:
        assert "header" in error.message
