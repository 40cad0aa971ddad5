"""Names of a hard-linked file: they state the same file, and a hostile archive cannot make their check endless."""

from __future__ import annotations

import random

import pytest

from cryostore.agent.archive.listing import archive_entries
from cryostore.agent.block import Kind, encode
from cryostore.agent.entry import NO_CONTENT, Content, Row
from cryostore.agent.report import Report
from cryostore.agent.verification.archive_check import (
    DIFFERS,
    SEQUENCES_MAX,
    TOO_MANY_SEQUENCES,
    LinkCheck,
    verify_archive,
)
from cryostore.core.limits import MIB
from support.archives.agent import in_an_hour, write
from support.archives.made_archive import plain_header, put
from support.requests.calls import CountedCall

COVERS = ("agent/verification/archive_check.py",)

SIZE = 1000
ROOT = encode(Kind.ROOT, b"", b"\0", [Row(0o040755, 0, 0, 0, 0, 0, 1, 1, 1).pack()], [NO_CONTENT.pack()], {})


def put_names(runs, chunks, contents, inodes=None, sizes=None):
    """Commit an archive of the names 0000, 0001, ..., each with its content, as names of one file."""
    names = b"".join(b"%04d\0" % number for number in range(len(contents)))
    inodes, sizes = inodes or [7] * len(contents), sizes or [SIZE] * len(contents)
    rows = [Row(0o100644, 0, 0, 2, 0, size, 1, 1, inode).pack() for size, inode in zip(sizes, inodes, strict=True)]
    listing = ROOT + encode(Kind.DIRECTORY, b"", names, rows, [content.pack() for content in contents], {})
    put(runs, listing, header=plain_header(len(contents) + 1, len(contents), SIZE * len(contents)), chunks=chunks)


def faults(runs):
    """Return the faults of entries by number, and the number of chunks that the check read."""
    runs.call = CountedCall(runs.call)
    with runs.opened() as archive:
        check = LinkCheck(archive)
        entries = list(archive_entries(archive))
        runs.call.counts.clear()
        found = {int(entry.path): check.fault(entry) for entry in entries if entry.path}
    return {number: fault for number, fault in found.items() if fault}, runs.call.counts["GetChunk"]


@pytest.mark.parametrize("data", [False, True])
def test_a_moved_name_of_a_hard_linked_file_is_not_false(local_runs, tmp_path, data):
    """The run stores the moved file again, so the two names have their bytes in two places of the archive."""
    source = tmp_path / "source"
    write(source, {"folder": {"large": random.Random(1).randbytes(MIB)}, "other": b""})
    (source / "other").unlink()
    (source / "other").hardlink_to(source / "folder" / "large")
    local_runs.backup(source, now=in_an_hour)
    (source / "folder").rename(source / "moved")
    local_runs.backup(source, now=in_an_hour)
    report = Report()
    with local_runs.opened() as archive:
        contents = {entry.content for entry in archive_entries(archive) if entry.row.is_file}
        verify_archive(archive, report, data=data)
    assert len(contents) == 2
    assert report.issues == []


def test_names_with_the_same_bytes_in_other_chunks_are_one_file(local_runs):
    data = random.Random(2).randbytes(SIZE)
    put_names(local_runs, [data, data[:300], data[300:]], [Content(1, 0, 0), Content(1, 1, 0)])
    assert faults(local_runs) == ({}, 3)


def test_names_with_other_bytes_or_another_size_are_false(local_runs):
    chunks = [random.Random(number).randbytes(SIZE) for number in range(2)]
    contents = [Content(1, 0, 0), Content(1, 1, 0), Content(1, 0, 0)]
    put_names(local_runs, chunks, contents, sizes=[SIZE, SIZE, SIZE - 1])
    assert faults(local_runs) == ({1: DIFFERS, 2: DIFFERS}, 2)
    report = Report()
    with local_runs.opened() as archive:
        verify_archive(archive, report, data=False)
    assert [(issue.path, issue.reason) for issue in report.issues[:2]] == [(b"0001", DIFFERS), (b"0002", DIFFERS)]


def test_names_of_a_damaged_file_are_not_false(local_runs):
    """The damage is an issue of its own."""
    put_names(local_runs, [bytes(SIZE)], [Content(1, 0, 0), Content(1, 1, 0), Content(2, 0, 0)])
    assert faults(local_runs)[0] == {}


def test_a_false_name_that_is_listed_often_is_read_once(local_runs):
    chunks = [random.Random(number).randbytes(SIZE) for number in range(2)]
    put_names(local_runs, chunks, [Content(1, 0, 0), *[Content(1, 1, 0)] * 500])
    found, read = faults(local_runs)
    assert set(found.values()) == {DIFFERS}
    assert (len(found), read) == (500, 2)


def test_files_that_share_their_false_names_are_read_once(local_runs):
    chunks = [random.Random(number).randbytes(SIZE) for number in range(2)]
    contents = [Content(1, 0, 0), Content(1, 1, 0)] * 200
    put_names(local_runs, chunks, contents, inodes=[number // 2 for number in range(400)])
    found, read = faults(local_runs)
    assert set(found.values()) == {DIFFERS}
    assert (len(found), read) == (200, 2)


@pytest.mark.parametrize("make", [bytes, random.Random(3).randbytes], ids=["equal bytes", "other bytes"])
def test_the_reads_of_a_file_whose_names_are_all_stored_differently_are_limited(local_runs, make):
    """Each name begins at another byte of the same chunks. The last names are refused before their bytes are read."""
    half = make(2 * SIZE)
    put_names(local_runs, [half, half], [Content(1, 0, SIZE + offset) for offset in range(500)])
    found, read = faults(local_runs)
    assert read <= 2 * SEQUENCES_MAX
    assert list(found.values()).count(TOO_MANY_SEQUENCES) == 500 - SEQUENCES_MAX
    assert found[499] == TOO_MANY_SEQUENCES
    assert (DIFFERS in found.values()) == (make is not bytes)
