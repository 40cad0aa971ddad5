"""Trees that change or refuse reads during a backup, or exceed limits: every counted entry can be restored."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import subprocess

import pytest

from cryostore.agent.archive.listing import archive_entries
from cryostore.agent.backup.entry_reader import EntryReader
from cryostore.agent.block import BLOCK_BYTES_MAX, ENTRY_BYTES_MAX, BlockBuilder, ExtraKind, Kind
from cryostore.agent.entry import NO_CONTENT, Row
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.report import Report
from cryostore.agent.source.selection import rooted
from cryostore.agent.source.walk import OPEN_LEVELS_MAX, Walk
from cryostore.agent.verification.archive_check import verify_archive
from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import KIB, MIB
from support.archives.agent import seen, write
from support.faults.refusing_source import RefusingSource

COVERS = ("agent/backup/entry_reader.py",)


DIRECTORY_ROW = Row(0o040755, 0, 0, 0, 0, 0, 1, 1, 1).pack()


def issues(report):
    return [(issue.path, issue.reason) for issue in report.issues]


def verified(runs):
    report = Report()
    with runs.opened() as archive:
        verify_archive(archive, report, data=True)
    return report


def restored_as_backed_up(runs, tmp_path):
    """Return whether the restored tree equals the source. The archive must pass its verification."""
    assert verified(runs).issue_count == 0
    assert runs.restore(tmp_path / "target").issue_count == 0
    return seen(tmp_path / "target") == seen(tmp_path / "source")


@pytest.mark.parametrize("folder", ["", "folder"])
def test_a_folder_with_unlistable_attributes_is_stored_without_them(runs, tmp_path, folder):
    write(tmp_path / "source", {"a": b"a", "folder": {"b": b"b", "below": {"c": b"c"}}})
    os.setxattr(tmp_path / "source" / folder, "user.note", b"value")
    source = RefusingSource(tmp_path / "source" / folder, "listxattr", errno.E2BIG, -1)
    with source.refusing():
        report, _ = runs.backup(tmp_path / "source")
    reason = f"its extended attributes cannot be listed: {os.strerror(errno.E2BIG)}"
    assert issues(report) == [(folder.encode(), reason)]
    assert verified(runs).issue_count == 0
    assert runs.restore(tmp_path / "target").issue_count == 0
    os.setxattr(tmp_path / "target" / folder, "user.note", b"value")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")
    report, outcome = runs.backup(tmp_path / "source")  # the next run tries again, although nothing has changed
    assert (report.issue_count, outcome.same) == (0, False)
    shutil.rmtree(tmp_path / "target")
    assert restored_as_backed_up(runs, tmp_path)


def test_an_unreadable_attribute_is_an_issue_and_all_else_is_stored(runs, tmp_path):
    write(tmp_path / "source", {"small": b"small", "large": bytes(600 * KIB)})
    for name in ("small", "large"):
        for attribute in ("user.a", "user.b"):
            os.setxattr(tmp_path / "source" / name, attribute, b"value")
        source = RefusingSource(tmp_path / "source" / name, "getxattr", errno.EIO, 1)
        with source.refusing():
            report, _ = runs.backup(tmp_path / "source", now=lambda: 0)
        assert issues(report) == [(name.encode(), "attribute 'user.a' cannot be read: Input/output error")]
        assert report.files == 2
        with runs.opened() as archive:
            found = {entry.path: [each.data for each in entry.extras] for entry in archive_entries(archive)}
        assert found[name.encode()] == [b"user.b\0value"]
    runs.backup(tmp_path / "source")
    assert restored_as_backed_up(runs, tmp_path)


def test_a_folder_that_is_missing_for_a_moment_is_stored_and_an_issue(local_runs, tmp_path):
    write(tmp_path / "source", {"a": b"a", "folder": {"b": b"b"}})
    method = EntryReader._with_attributes

    def move_folder_meanwhile(self, directory, name, known):
        if name == b"folder":
            os.rename(tmp_path / "source" / "folder", tmp_path / "elsewhere")
        found = method(self, directory, name, known)
        if name == b"folder":
            os.rename(tmp_path / "elsewhere", tmp_path / "source" / "folder")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EntryReader, "_with_attributes", move_folder_meanwhile)
        report, _ = local_runs.backup(tmp_path / "source")
    assert issues(report) == [(b"folder", "its extended attributes were not read: it was missing for a moment")]
    assert verified(local_runs).issue_count == 0
    assert local_runs.restore(tmp_path / "target").issue_count == 0
    assert (tmp_path / "target" / "folder" / "b").read_bytes() == b"b"


def test_a_folder_that_is_removed_during_the_backup_is_one_issue(local_runs, tmp_path):
    write(tmp_path / "source", {"a": b"a", "folder": {"b": b"b"}})
    report, _ = local_runs.backup(tmp_path / "source", before_read=lambda _: shutil.rmtree(tmp_path / "source/folder"))
    assert issues(report) == [(b"folder", "No such file or directory")]
    assert verified(local_runs).issue_count == 0
    local_runs.restore(tmp_path / "target")
    assert set(seen(tmp_path / "target")) == {b"", b"a", b"folder"}


def test_a_listed_name_without_stat_data_is_an_issue(local_runs, tmp_path):
    """For example in a damaged directory."""
    write(tmp_path / "source", {"a": b"a", "b": b"b"})
    with RefusingSource(tmp_path / "source" / "b", "stat", errno.ENOENT, -1).refusing():
        report, _ = local_runs.backup(tmp_path / "source")
    assert issues(report) == [(b"b", "No such file or directory")]
    assert report.files == 1


@pytest.mark.parametrize("seconds", [15_032_385_535, -(1 << 31), 9_223_372_036, 9_223_372_037])
def test_extreme_modification_times_are_restored(runs, tmp_path, seconds):
    write(tmp_path / "source", {"far": b"far", "near": b"near", "folder": {}})
    for name in ("far", "folder"):
        os.utime(tmp_path / "source" / name, ns=(0, seconds * 10**9 + 7))
    report, _ = runs.backup(tmp_path / "source")
    assert report.issue_count == 0
    assert restored_as_backed_up(runs, tmp_path)
    _, outcome = runs.backup(tmp_path / "source")
    assert outcome.same


def test_the_bytes_of_a_block_are_bounded(local_runs, tmp_path, monkeypatch):
    monkeypatch.setattr("cryostore.agent.block.BLOCK_BYTES_MAX", 8 * KIB)
    write(tmp_path / "source", {f"{number:03}": b"" for number in range(100)})
    for number in range(100):
        os.setxattr(tmp_path / "source" / f"{number:03}", "user.fork", os.urandom(1000))
    local_runs.backup(tmp_path / "source")
    with local_runs.opened() as archive:
        blocks = [block for block in archive.blocks() if block.kind == Kind.DIRECTORY]
        assert len(blocks) > 10
        assert all(len(block.extras) <= 8 * KIB for block in blocks)
    assert restored_as_backed_up(local_runs, tmp_path)
    report, outcome = local_runs.backup(tmp_path / "source")  # such blocks are reused unchanged
    assert (report.unchanged, outcome.same) == (100, True)
    (tmp_path / "source" / "050").write_bytes(b"changed")
    report, _ = local_runs.backup(tmp_path / "source")
    assert (report.unchanged, report.changed) == (99, 1)
    shutil.rmtree(tmp_path / "target")
    assert restored_as_backed_up(local_runs, tmp_path)


def test_no_block_of_several_entries_exceeds_the_limit():
    builder = BlockBuilder(Kind.DIRECTORY, b"")
    long = [type("Extra", (), {"kind": ExtraKind.XATTR, "data": bytes(ENTRY_BYTES_MAX)})()]
    assert builder.has_room(long)
    builder.add(b"a", DIRECTORY_ROW, NO_CONTENT.pack(), [])
    assert not builder.has_room(long)
    assert 2 * ENTRY_BYTES_MAX + BLOCK_BYTES_MAX < 48 * MIB


def test_a_tree_may_be_deeper_than_the_limit_of_open_files(local_runs, tmp_path):
    depth = 20 * OPEN_LEVELS_MAX
    place = os.open(tmp_path, os.O_RDONLY)
    for level in range(depth):
        for name in ("a", "b") if level % 40 == 0 else ("b",):  # siblings after the deepest folder are read as well
            os.mkdir(name, dir_fd=place)
        os.mkdir("c", dir_fd=place)
        below = os.open("b", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    opened = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 100, hard))
    try:
        report, _ = local_runs.backup(tmp_path)
        assert verified(local_runs).issue_count == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        subprocess.run(["rm", "-rf", str(tmp_path / "b")], check=True)
    assert report.issue_count == 0
    assert report.directories == 2 * depth + depth // 40 + 1


def test_a_moved_deep_folder_is_an_issue_and_is_not_confused_with_another(local_runs, tmp_path):
    depth = OPEN_LEVELS_MAX + 5
    deep = tmp_path / "source" / "/".join(["b"] * depth)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"file")
    write(tmp_path / "source" / "b" / "b", {"c": {"left out": b""}})
    write(tmp_path / "other", {"c": {"another": b"another"}})

    def move(path):
        if path.endswith(b"/file"):
            os.rename(tmp_path / "source" / "b" / "b" / "b", tmp_path / "moved")
            os.rename(tmp_path / "source" / "b" / "b", tmp_path / "old")
            os.rename(tmp_path / "other", tmp_path / "source" / "b" / "b")

    report, _ = local_runs.backup(tmp_path / "source", before_read=move)
    assert [issue.path for issue in report.issues] == [b"b/b"]
    with local_runs.opened() as archive:
        paths = {entry.path for entry in archive_entries(archive)}
    assert b"b/b/c" in paths
    assert not {path for path in paths if b"another" in path}
    assert verified(local_runs).issue_count == 0


@pytest.mark.parametrize("one_file_system", [False, True])
def test_a_missing_path_is_an_issue_and_the_others_are_backed_up(local_runs, tmp_path, one_file_system):
    write(tmp_path / "source", {"a": {"1": b"1", "3": b"3"}, "b": b"b", "c": b"c"})
    named = [os.fsencode(tmp_path / "source" / name) for name in ("a/1", "a/2", "b", "gone/x", "gone/y")]
    root, only = rooted(named)
    assert root == os.fsencode(tmp_path / "source")
    report, _ = local_runs.backup(root, only=only, one_file_system=one_file_system)
    assert issues(report) == [(path, "No such file or directory") for path in (b"gone", b"a/2")]
    local_runs.restore(tmp_path / "target")
    assert set(seen(tmp_path / "target")) == {b"", b"a", b"a/1", b"b"}


def test_a_missing_path_does_not_change_the_root(tmp_path):
    write(tmp_path, {"a": {"x": b""}, "b": b""})
    paths = [os.fsencode(tmp_path / name) for name in ("a/x", "b")]
    before = rooted(paths)
    (tmp_path / "b").unlink()
    assert rooted(paths) == before


def test_a_missing_path_below_another_is_an_issue(local_runs, tmp_path):
    write(tmp_path / "source", {"a": b"a"})
    root, only = rooted([os.fsencode(tmp_path / "source" / name) for name in ("", "gone")])
    assert root == os.fsencode(tmp_path / "source")
    report, _ = local_runs.backup(root, only=only)
    assert issues(report) == [(b"gone", "No such file or directory")]
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_path_within_another_path_excludes_nothing(local_runs, tmp_path):
    write(tmp_path / "source", {"a": {"b": {"c": b"c"}, "d": b"d"}, "e": b"e", "f": b"f"})
    root, only = rooted([os.fsencode(tmp_path / "source" / name) for name in ("a", "a/b/c", "e")])
    local_runs.backup(root, only=only)
    local_runs.restore(tmp_path / "target")
    assert set(seen(tmp_path / "target")) == {b"", b"a", b"a/b", b"a/b/c", b"a/d", b"e"}


def test_a_socket_as_a_path_is_refused_or_an_issue(local_runs, tmp_path):
    (tmp_path / "source").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "source" / "socket"))
    path = os.fsencode(tmp_path / "source" / "socket")
    with pytest.raises(ConfigurationError, match="is a socket"):
        rooted([path])
    write(tmp_path / "source", {"a": b"a"})
    root, only = rooted([path, os.fsencode(tmp_path / "source" / "a")])
    report, _ = local_runs.backup(root, only=only)
    listener.close()
    assert issues(report) == [(b"socket", "is a socket, which has no content")]


def test_an_incomplete_tree_is_never_committed(local_runs, tmp_path):
    write(tmp_path / "source", {"a": {"b": {"c": b"c"}}})

    class SkippingWalk(Walk):
        def __iter__(self):
            return (directory for directory in super().__iter__() if directory.path != b"a")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryostore.agent.backup.run.Walk", SkippingWalk)
        with pytest.raises(ArchiveDamagedError, match="a/b has no entry in its parent folder"):
            local_runs.backup(tmp_path / "source")
    with pytest.raises(ConfigurationError):
        local_runs.latest()


def test_the_header_names_one_path_for_each_folder_with_many_paths(local_runs, tmp_path, monkeypatch):
    """The store would refuse a longer header after all files were read. `--delete` only needs the folders."""
    monkeypatch.setattr("cryostore.agent.backup.archive_writer.ONLY_BYTES_MAX", 900)
    write(tmp_path / "source", {folder: {f"{number:03}": b"" for number in range(200)} for folder in ("a", "b")})
    named = frozenset(f"{folder}/{number:03}".encode() for folder in ("a", "b") for number in range(100))
    report, _ = local_runs.backup(tmp_path / "source", only=named)
    assert (report.issue_count, report.files) == (0, 200)
    with local_runs.opened() as archive:
        assert archive.header.only == [b"a/000", b"b/000"]
    _, outcome = local_runs.backup(tmp_path / "source", only=named)
    assert outcome.same
