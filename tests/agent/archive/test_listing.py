"""Listing of an archive: its entries, paths as users write them, and look-ups in its tree.

A look-up finds the same entries as a reader of the whole listing, and reads few chunks.
"""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.agent.archive.entry_search import EntryCriteria, EntrySearch
from cryostore.agent.archive.listing import (
    ArchiveEntry,
    ArchiveTree,
    archive_entries,
    archive_path,
    block_entries,
    block_entry,
)
from cryostore.agent.block import Extra, ExtraKind, Kind, decode, encode, order_key
from cryostore.agent.entry import NO_CONTENT, Content, Row
from cryostore.agent.header import Header
from cryostore.agent.report import Report
from cryostore.agent.restore.tree_restore import TreeRestoreOptions, restore_tree
from cryostore.core.errors import ConfigurationError
from support.archives.agent import write
from support.archives.made_archive import put
from support.requests.calls import CountedCall

FILE_ROW, FOLDER_ROW = (Row(mode, 0, 0, 1, 0, 0, 1, 1, number) for number, mode in enumerate((0o100644, 0o040755), 1))
NOTE = Extra(ExtraKind.XATTR, b"user.note\0value")
FOLDER, FILE = 0o040755, 0o100644
NAMES = (
    st.binary(min_size=1, max_size=3)
    .filter(lambda name: not {b"/", b"\0"} & {bytes([b]) for b in name})
    .filter(lambda name: name not in (b".", b".."))
)


def test_the_path_of_an_entry_starts_with_its_directory():
    contents = [Content(1, 2, 3).pack(), NO_CONTENT.pack()]
    (block,) = decode(
        encode(Kind.DIRECTORY, b"a/b", b"file\0g\0", [FILE_ROW.pack(), FOLDER_ROW.pack()], contents, {1: [NOTE]})
    )
    expected = [
        ArchiveEntry(b"a/b/file", FILE_ROW, Content(1, 2, 3), []),
        ArchiveEntry(b"a/b/g", FOLDER_ROW, NO_CONTENT, [NOTE]),
    ]
    assert list(block_entries(block)) == expected
    assert [block_entry(block, index) for index in range(2)] == expected


@pytest.mark.parametrize(
    ("root", "text", "path"),
    [
        (b"/srv/data", "", b""),
        (b"/srv/data", ".", b""),
        (b"/srv/data", "/srv/data", b""),
        (b"/srv/data", "/srv/data/a//b/", b"a/b"),
        (b"/srv/data", "/srv/database", b"srv/database"),
        (b"/srv/data", "a/../b", b"b"),
        (b"/", "/etc/hosts", b"etc/hosts"),
        (b"/", "/", b""),
    ],
)
def test_a_path_is_taken_below_the_root_of_the_archive(root, text, path):
    assert archive_path(SimpleNamespace(header=SimpleNamespace(root=root)), text) == path


def row(mode, inode=1):
    return Row(mode, 0, 0, 1, 0, 1 if mode == FILE else 0, 0, 0, inode).pack()


ROOT = encode(Kind.ROOT, b"", b"\0", [row(FOLDER)], [NO_CONTENT.pack()], {})


def blocks_of(tree, part=3):
    """The blocks of a tree, at most `part` entries in each. `tree` has the modes of names by folder path."""
    yield ROOT
    for path in sorted(tree, key=order_key):
        names = sorted(tree[path])
        for first in range(0, max(len(names), 1), part):
            some = names[first : first + part]
            contents = [(Content(1, 0, 0) if tree[path][name] == FILE else NO_CONTENT).pack() for name in some]
            rows = [row(tree[path][name]) for name in some]
            yield encode(Kind.DIRECTORY, path, b"".join(name + b"\0" for name in some), rows, contents, {})


class Cut:
    """An archive that has only a listing, cut into chunks."""

    def __init__(self, blocks, sizes):
        self.listing_chunks = []
        while blocks:
            count = sizes[len(self.listing_chunks) % len(sizes)]
            self.listing_chunks.append(b"".join(blocks[:count]))
            blocks = blocks[count:]

    def chunk_bytes(self, chunk):
        return chunk

    def map_ahead(self, work, given):
        yield from map(work, given)


@st.composite
def trees(draw):
    """A tree: the modes of names by folder path."""
    tree = {b"": {}}
    for _ in range(draw(st.integers(0, 25))):
        above = draw(st.sampled_from(sorted(tree)))
        name = draw(NAMES)
        path = above + b"/" + name if above else name
        if path not in tree and name not in tree[above]:
            mode = draw(st.sampled_from([FOLDER, FILE]))
            tree[above][name] = mode
            if mode == FOLDER:
                tree[path] = {}
    return tree


@given(trees(), st.lists(st.integers(1, 4), min_size=1, max_size=5), NAMES)
def test_look_ups_agree_with_the_whole_listing(folders, sizes, other):
    cut = Cut(list(blocks_of(folders)), sizes)
    tree = ArchiveTree(cut)
    everything = [entry for chunk in cut.listing_chunks for block in decode(chunk) for entry in block_entries(block)]
    listed = [entry for entry in everything if entry.path]
    for entry in listed:
        assert tree.find(entry.path) == entry
        if not entry.row.is_directory:
            assert list(tree.entries(entry.path)) == [entry]
    for path in folders:
        inside = [entry for entry in listed if not path or entry.path.startswith(path + b"/")]
        direct = [entry for entry in inside if entry.path.rpartition(b"/")[0] == path]
        assert list(tree.entries(path)) == inside
        assert list(tree.entries(path, recursive=False)) == direct
        if other not in folders[path]:
            missing = path + b"/" + other if path else other
            assert tree.find(missing) is None
            assert tree.directory(missing) == []
            with pytest.raises(ConfigurationError):
                list(tree.entries(missing))


# --- the cost of a look-up --------------------------------------------------------------------------------------------

CHUNKS = 500


@pytest.fixture
def large(local_runs):
    """A recovery point whose listing has many chunks, each with a folder of three files; its call counts operations."""
    folders = {b"": {b"d%04d" % number: FOLDER for number in range(CHUNKS)}}
    folders |= {path: dict.fromkeys((b"a", b"b", b"c"), FILE) for path in folders[b""]}
    blocks = list(blocks_of(folders, part=CHUNKS))
    chunks = [blocks[0] + blocks[1], *blocks[2:]]
    header = Header(root=b"/x", entries=0, files=0, file_bytes=0, objects=[], users={}, groups={}).encode()
    put(local_runs, chunks, header=header)
    local_runs.call = CountedCall(local_runs.call)
    return local_runs


def test_the_restore_of_a_folder_reads_few_chunks_of_the_listing(large, tmp_path):
    report = Report()
    with large.opened() as archive:
        large.call.counts.clear()
        restore_tree(archive, TreeRestoreOptions(target=os.fsencode(tmp_path / "target"), path=b"d0321"), report)
    assert sorted(os.listdir(tmp_path / "target")) == ["a", "b", "c"]
    assert report.issue_count == 0
    assert large.call.counts["GetChunk"] <= 2 * CHUNKS.bit_length() + 6


def test_the_restore_of_a_file_reads_few_chunks_of_the_listing(large, tmp_path):
    with large.opened() as archive:
        large.call.counts.clear()
        restore_tree(archive, TreeRestoreOptions(target=os.fsencode(tmp_path / "target"), path=b"d0321/b"), Report())
    assert (tmp_path / "target" / "b").read_bytes() == b"x"
    assert large.call.counts["GetChunk"] <= 2 * CHUNKS.bit_length() + 6


@pytest.mark.parametrize("path", [b"d0321", b"d0000/a", b"d0499", b"d0499/c", b""])
def test_the_entries_of_a_path_are_listed_from_few_chunks(large, path):
    with large.opened() as archive:
        large.call.counts.clear()
        found = list(ArchiveTree(archive).entries(path, recursive=False))
    assert len(found) == {b"": CHUNKS}.get(path, 1 if b"/" in path else 3)
    assert large.call.counts["GetChunk"] <= 2 * CHUNKS.bit_length() + 6


@pytest.mark.parametrize("pattern", [b"/x/d0321/*", b"d0321/[ab]*", b"/d0321/?"])
def test_a_search_below_one_folder_reads_few_chunks_of_the_listing(large, pattern):
    with large.opened() as archive:
        large.call.counts.clear()
        found = [entry.path for entry in EntrySearch(EntryCriteria(pattern=pattern)).find(archive)]
    assert found[:2] == [b"d0321/a", b"d0321/b"]
    assert large.call.counts["GetChunk"] <= 4 * CHUNKS.bit_length() + 8


@given(
    st.sampled_from([b"/", b"/r", b"/r/s"]),
    st.lists(st.sampled_from([b"r", b"s", b"a", b"b", b"*", b"?", b"[ab]", b"/", b"/"]), min_size=1, max_size=8),
    trees(),
)
def test_every_match_of_a_pattern_is_in_a_searched_folder(root, parts, folders):
    wanted = EntryCriteria(pattern=b"".join(parts))
    below = wanted.folders(root)
    for path, names in folders.items():
        for name in names:
            if below is not None and wanted.matches_path(root, path, name):
                assert any(path == folder or path.startswith(folder + b"/") for folder in below)


def test_paths_are_relative_to_the_root_or_absolute(local_runs, tmp_path):
    write(tmp_path / "source", {"a": {"b": b""}, "c": b""})
    local_runs.backup(tmp_path / "source")
    with local_runs.opened() as archive:
        for text in ("a", "./a/", "/a", f"{tmp_path}/source/a"):
            assert archive_path(archive, text) == b"a"
        for text in ("", ".", "/", f"{tmp_path}/source"):
            assert archive_path(archive, text) == b""
        tree = ArchiveTree(archive)
        assert [entry.path for entry in tree.entries(b"a")] == [b"a/b"]
        assert [entry.path for entry in tree.entries(b"a/b")] == [b"a/b"]
        assert [entry.path for entry in tree.entries(recursive=False)] == [b"a", b"c"]
        assert [entry.path for entry in tree.entries()] == [b"a", b"c", b"a/b"]
        assert list(tree.entries()) == list(archive_entries(archive))
        with pytest.raises(ConfigurationError, match="does not contain 'd'"):
            list(tree.entries(b"d"))
