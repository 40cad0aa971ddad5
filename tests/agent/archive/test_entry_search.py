"""Search for entries by name, path, kind, time and size, and look-ups of paths that read few chunks."""

from __future__ import annotations

import os

import pytest

from cryostore.agent import block
from cryostore.agent.archive.entry_search import EntryCriteria, EntrySearch
from cryostore.agent.archive.listing import ArchiveTree, archive_entries
from cryostore.agent.backup import listing_writer
from cryostore.core.limits import KIB
from support.archives.agent import write
from support.requests.calls import CountedCall


def found(runs, pattern, **more):
    with runs.opened() as archive:
        return [entry.path for entry in EntrySearch(EntryCriteria(pattern=pattern, **more)).find(archive)]


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    write(root, {"a.conf": b"1", "etc": {"a.conf": b"12345", "b": {"a.conf": b"", "new": b""}}, b"\xff.conf": b""})
    os.symlink("a.conf", root / "link.conf")
    for path in ("a.conf", "etc/a.conf", "etc/b/a.conf", "etc/b/new"):
        os.utime(root / path, ns=(1, 10**18))
    os.utime(root / "etc" / "b" / "new", ns=(1, 2 * 10**18))
    return root


def test_search_by_name_and_path(runs, source):
    runs.backup(source)
    every = [b"a.conf", b"link.conf", b"\xff.conf", b"etc/a.conf", b"etc/b/a.conf"]
    assert found(runs, b"*.conf") == every
    assert found(runs, b"a.con?") == [b"a.conf", b"etc/a.conf", b"etc/b/a.conf"]
    assert found(runs, b"[!a]*.conf", kind="f") == [b"\xff.conf"]
    assert found(runs, b"/etc/*.conf") == [b"etc/a.conf", b"etc/b/a.conf"]
    assert found(runs, os.fsencode(source) + b"/a.conf") == [b"a.conf"]
    assert found(runs, b"\xff*") == [b"\xff.conf"]
    assert found(runs, b"A.CONF") == []


def test_search_by_kind_time_and_size(local_runs, source):
    local_runs.backup(source)
    assert found(local_runs, b"*", kind="d") == [b"etc", b"etc/b"]
    assert found(local_runs, b"*", kind="l") == [b"link.conf"]
    assert found(local_runs, b"*.conf", larger_bytes=1) == [b"etc/a.conf"]
    assert found(local_runs, b"new", newer_ns=10**18) == [b"etc/b/new"]
    assert found(local_runs, b"new", newer_ns=2 * 10**18) == []


@pytest.fixture
def many(local_runs, tmp_path, monkeypatch):
    """A recovery point whose listing has many chunks, because the minimum chunk size is lowered."""
    monkeypatch.setattr(listing_writer, "CHUNK_BYTES_MIN", 4 * KIB)
    monkeypatch.setattr(listing_writer, "CHUNK_BYTES_MAX", 16 * KIB)
    tree = {f"{n:03}": {f"file-{m:03}": b"" for m in range(20)} for n in range(100)}
    write(tmp_path / "source", tree)
    write(tmp_path / "source", {"a": {"b": {"c": b"deep"}}, "a.b": {"d": b""}, "a-b": {}})
    local_runs.backup(tmp_path / "source")
    return local_runs


def test_chunks_shared_by_recovery_points_are_read_once(many, tmp_path):
    write(tmp_path / "source" / "050", {"needle": b""})
    first = many.latest()
    many.backup(tmp_path / "source")
    finder = EntrySearch(EntryCriteria(pattern=b"needle"))
    with many.opened() as archive:
        assert len(archive.listing_chunks) > 5
        assert [entry.path for entry in finder.find(archive)] == [b"050/needle"]
    call = many.call = CountedCall(many.call)
    with many.opened(first) as archive:
        assert list(finder.find(archive)) == []
    assert call.counts["GetChunk"] <= 2
    finder = EntrySearch(EntryCriteria(pattern=b"file-007"))
    for point in (first, "latest", first):
        with many.opened(point) as archive:
            assert [entry.path for entry in finder.find(archive)] == [b"%03d/file-007" % n for n in range(100)]


def test_a_look_up_reads_a_part_of_the_listing(many):
    call = many.call = CountedCall(many.call)
    with many.opened() as archive:
        tree = ArchiveTree(archive)
        entry = tree.find(b"021/file-007")
        assert entry.path == b"021/file-007"
        assert call.counts["GetChunk"] < len(archive.listing_chunks)


def test_look_ups_find_listed_paths_only(many):
    with many.opened() as archive:
        tree = ArchiveTree(archive)
        listed = list(archive_entries(archive))
        assert len(listed) > 2_000
        for entry in listed[::97] + [each for each in listed if each.path.startswith(b"a")]:
            assert tree.find(entry.path) == entry
        for path in (b"b", b"a/c", b"a.b/c", b"021/", b"021/file", b"999", b"a/b/c/d", b"."):
            assert tree.find(path) is None
        assert tree.root().row.is_directory
        assert sum(each.entries for each in tree.directory(b"021")) == 20


def test_look_ups_in_a_folder_of_several_blocks(local_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(block, "WHOLE_ENTRIES_MAX", 10)
    monkeypatch.setattr(block, "PART_ENTRIES_MAX", 16)
    write(tmp_path / "source", {"many": {f"{n:03}": b"" for n in range(100)}})
    local_runs.backup(tmp_path / "source")
    with local_runs.opened() as archive:
        tree = ArchiveTree(archive)
        assert len(tree.directory(b"many")) > 5
        assert all(tree.find(b"many/%03d" % n).path == b"many/%03d" % n for n in range(100))
        assert tree.find(b"many/100") is None
