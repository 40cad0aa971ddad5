"""Backup runs: which files are read and sent, what is inherited, which failures are issues and which end the run."""

from __future__ import annotations

import os
import random
import signal
import socket
import stat
import threading

import pytest

from cryostore.agent.archive.listing import archive_entries
from cryostore.agent.archive.open_archive import open_archive
from cryostore.agent.archive.recovery_points import find_point
from cryostore.agent.backup.job import heartbeat, open_job
from cryostore.agent.backup.run import BackupOptions, backup_tree
from cryostore.agent.encryption.key_objects import is_key_name
from cryostore.agent.report import Report
from cryostore.agent.restore.tree_restore import TreeRestoreOptions as RestoreOptions
from cryostore.agent.restore.tree_restore import restore_tree
from cryostore.client import pages
from cryostore.core.interrupts import deferred
from cryostore.core.limits import KIB, MIB
from cryostore.core.time import wall_clock
from cryostore.model.chunks import GetChunk, LinkChunks, PutChunk
from cryostore.model.errors import ServiceUnavailableException
from cryostore.model.jobs import ListBackupJobs
from cryostore.model.objects import DeleteObject, ListObjects
from support.archives.agent import in_an_hour, seen, write
from support.faults.small_disk import small_disk
from support.waiting import until

COVERS = ("agent/backup/archive_writer.py", "agent/backup/listing_writer.py")


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def everything(root):
    """A tree with an entry of every kind."""
    write(
        root,
        {
            "empty": b"",
            "small": b"small",
            "large": noise(3 * MIB),
            "folder": {"empty folder": {}, "deep": {"er": {"file": b"deep"}}},
            b"not utf-8 \xff": b"name",
            b"new\nline": b"name",
            b"n" * 255: b"longest",
            "link": lambda path: os.symlink(b"../nowhere \xfe", path),
            "fifo": os.mkfifo,
        },
    )
    os.link(root / "small", root / "folder" / "same file")
    os.chmod(root / "small", 0o4640)
    os.utime(root / "small", ns=(1, 1_234_567_890_123_456_789))
    os.utime(root / "folder" / "empty folder", ns=(1, 987_654_321_012_345_678))
    os.utime(root / "link", ns=(1, -5_000_000_001), follow_symlinks=False)
    os.setxattr(root / "small", "user.note", b"\0\xffvalue")
    os.setxattr(root / "folder", "user.empty", b"")
    if os.geteuid() == 0:
        os.chown(root / "large", 1234, 5678)
        os.chown(root / "folder" / "deep" / "er" / "file", 1234, 0)
        os.mknod(root / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def test_a_restored_tree_equals_the_source(runs, tmp_path):
    everything(tmp_path / "source")
    report, outcome = runs.backup(tmp_path / "source")
    assert (report.issue_count, report.unchanged, outcome.same) == (0, 0, False)
    assert runs.restore(tmp_path / "target").issue_count == 0
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_sparse_files_stay_sparse(runs, tmp_path):
    root = tmp_path / "source"
    write(root, {"only a hole": b"", "data between": b""})
    os.truncate(root / "only a hole", 64 * MIB)
    with (root / "data between").open("r+b") as file:
        for offset in (5 * MIB, 20 * MIB):
            file.seek(offset)
            file.write(noise(MIB, offset))
        file.truncate(32 * MIB)
    report, _ = runs.backup(root)
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(root)
    assert 2 * MIB <= report.read_bytes <= 2 * MIB + 8 * KIB
    assert (tmp_path / "target" / "only a hole").stat().st_blocks == 0
    assert (tmp_path / "target" / "data between").stat().st_blocks <= (root / "data between").stat().st_blocks


def test_an_unchanged_tree_opens_no_file_and_sends_nothing(runs, tmp_path):
    everything(tmp_path / "source")
    runs.backup(tmp_path / "source")
    opened = []
    report, outcome = runs.backup(tmp_path / "source", before_read=opened.append)
    assert (opened, outcome.same, report.sent_bytes, report.read_bytes) == ([], True, 0, 0)
    assert report.unchanged == report.files
    assert report.total_bytes == report.file_bytes
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_file_that_could_have_changed_unseen_is_read_again(local_runs, tmp_path):
    write(tmp_path / "source", {"file": b"one"})
    local_runs.backup(tmp_path / "source", now=wall_clock)
    opened = []
    _, outcome = local_runs.backup(tmp_path / "source", before_read=opened.append)
    assert (opened, outcome.same) == ([b"file"], False)
    opened.clear()
    _, outcome = local_runs.backup(tmp_path / "source", before_read=opened.append)
    assert (opened, outcome.same) == ([], True)


def an_hour_ago():
    """A clock by which new files are too young to be trusted."""
    return wall_clock() - 3_600_000


def test_a_large_file_that_was_too_young_keeps_its_place_if_it_is_unchanged(runs, tmp_path):
    write(tmp_path / "source", {"large": noise(3 * MIB, runs.resource), "small": b"x", "sparse": b""})
    os.truncate(tmp_path / "source" / "sparse", 4 * MIB)
    runs.backup(tmp_path / "source", now=an_hour_ago)
    opened = []
    report, _ = runs.backup(tmp_path / "source", before_read=opened.append)
    assert b"large" in opened
    assert (report.unchanged, report.changed) == (1, 2)
    with runs.opened() as archive:
        assert [each.number for each in archive.header.objects] == [1]
    report, outcome = runs.backup(tmp_path / "source")
    assert (report.unchanged, report.read_bytes, outcome.same) == (3, 0, True)
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


@pytest.mark.parametrize("at", [0, MIB, 3 * MIB - 1])
def test_a_large_file_that_was_too_young_and_has_changed_is_stored(local_runs, tmp_path, at):
    """Its size and its modification time are the same."""
    path = tmp_path / "source" / "large"
    write(tmp_path / "source", {"large": noise(3 * MIB, local_runs.resource)})
    local_runs.backup(tmp_path / "source", now=an_hour_ago)
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([path.read_bytes()[at] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    report, _ = local_runs.backup(tmp_path / "source")
    assert (report.unchanged, report.changed) == (0, 1)
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_large_file_that_was_too_young_and_changes_again_is_stored(local_runs, tmp_path):
    write(tmp_path / "source", {"large": noise(3 * MIB, local_runs.resource)})
    local_runs.backup(tmp_path / "source", now=an_hour_ago)

    reads = []

    def change(path):
        reads.append(path)
        if len(reads) == 1:
            with (tmp_path / "source" / os.fsdecode(path)).open("ab") as file:
                file.write(b"more")

    report, _ = local_runs.backup(tmp_path / "source", before_read=change)
    assert (report.changed, report.issue_count) == (1, 0)
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_file_dated_in_the_future_is_not_read_by_each_run(local_runs, tmp_path):
    write(tmp_path / "source", {"file": noise(700 * KIB)})
    os.utime(tmp_path / "source/file", ns=(2**33 * 10**9, 2**33 * 10**9))
    local_runs.backup(tmp_path / "source")
    opened = []
    _, outcome = local_runs.backup(tmp_path / "source", before_read=opened.append)
    assert (opened, outcome.same) == ([], True)


def test_a_changed_byte_of_a_large_file_costs_about_a_chunk(runs, tmp_path):
    write(tmp_path / "source", {"large": noise(24 * MIB)})
    runs.backup(tmp_path / "source")
    with (tmp_path / "source" / "large").open("r+b") as file:
        file.seek(12 * MIB)
        file.write(b"changed")
    report, _ = runs.backup(tmp_path / "source")
    assert (report.changed, report.new, report.read_bytes) == (1, 0, 24 * MIB)
    assert report.sent_bytes < 5 * MIB
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_renames_and_copies_send_only_a_listing(runs, tmp_path):
    write(tmp_path / "source", {"a": {str(n): noise(2 * KIB, n) for n in range(200)}, "large": noise(6 * MIB)})
    runs.backup(tmp_path / "source")
    os.rename(tmp_path / "source" / "a", tmp_path / "source" / "b")
    os.rename(tmp_path / "source" / "b" / "7", tmp_path / "source" / "seven")
    write(tmp_path / "source" / "copies", {"large": noise(6 * MIB), "8": noise(2 * KIB, 8)})
    report, _ = runs.backup(tmp_path / "source")
    assert report.sent_bytes < 64 * KIB
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_content_that_no_file_needs_is_dropped(runs, tmp_path):
    write(tmp_path / "source", {"file": noise(MIB)})
    runs.backup(tmp_path / "source")
    write(tmp_path / "source", {"file": noise(MIB, 2)})
    runs.backup(tmp_path / "source")
    with runs.opened() as archive:
        assert [each.number for each in archive.header.objects] == [2]
        assert [name for name in archive.object_names if not is_key_name(name)] == ["catalog", "content-00000002"]
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_each_name_of_a_file_counts(local_runs, tmp_path):
    write(tmp_path / "source", {"a": b"content"})
    os.link(tmp_path / "source" / "a", tmp_path / "source" / "b")
    report, _ = local_runs.backup(tmp_path / "source")
    assert (report.files, report.new, report.changed, report.unchanged) == (2, 2, 0, 0)
    os.link(tmp_path / "source" / "a", tmp_path / "source" / "c")
    (tmp_path / "source" / "a").write_bytes(b"another")
    report, _ = local_runs.backup(tmp_path / "source")
    assert (report.files, report.new, report.changed, report.unchanged) == (3, 1, 2, 0)
    report, _ = local_runs.backup(tmp_path / "source")
    assert (report.files, report.new, report.changed, report.unchanged) == (3, 0, 0, 3)


@pytest.mark.parametrize("size", [0, 9])
def test_an_interrupt_ends_a_run_inside_a_folder_of_small_files(local_runs, tmp_path, size):
    """Even if all have the same content, so that nothing is sent."""
    write(tmp_path / "source", {f"{number}": b"x" * size for number in range(100)})
    read = []

    def interrupt(path):
        read.append(path)
        signal.raise_signal(signal.SIGINT)

    with deferred(), pytest.raises(KeyboardInterrupt):
        local_runs.backup(tmp_path / "source", before_read=interrupt)
    assert len(read) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_an_issue(local_runs, tmp_path):
    write(tmp_path / "source", {"secret": b"secret", "other": b"other"})
    os.chmod(tmp_path / "source" / "secret", 0)
    report, outcome = local_runs.backup(tmp_path / "source")
    assert (report.issue_count, report.files) == (1, 1)
    assert outcome.recovery_point_arn


def test_a_file_that_vanishes_is_only_an_issue(runs, tmp_path):
    write(tmp_path / "source", {"a": b"a", "b": b"b", "c": b"c"})

    def vanish(path):
        if path == b"a":
            os.unlink(tmp_path / "source" / "b")

    report, _ = runs.backup(tmp_path / "source", before_read=vanish)
    assert [(issue.path, issue.reason) for issue in report.issues] == [(b"b", "No such file or directory")]
    runs.restore(tmp_path / "target")
    assert set(seen(tmp_path / "target")) == {b"", b"a", b"c"}


@pytest.mark.parametrize("size", [1000, 2 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_file_that_changes_once_while_it_is_read_is_read_again(local_runs, tmp_path, size, change):
    path = tmp_path / "source" / "file"
    write(tmp_path / "source", {"file": noise(size)})
    times = []

    def race(_):
        times.append(1)
        if len(times) == 1:
            path.write_bytes(noise({"grow": 2 * size, "shrink": size // 2, "rewrite": size}[change], 2))

    report, _ = local_runs.backup(tmp_path / "source", before_read=race)
    assert (len(times), report.issue_count) == (2, 0)
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


@pytest.mark.parametrize("size", [1000, 2 * MIB], ids=["small", "large"])
def test_a_file_that_changes_during_each_read_is_stored_and_read_again_by_the_next_run(local_runs, tmp_path, size):
    path = tmp_path / "source" / "file"
    write(tmp_path / "source", {"file": noise(size)})
    lengths = iter(range(size + 1, size + 10))

    def race(_):
        path.write_bytes(noise(next(lengths)))

    report, _ = local_runs.backup(tmp_path / "source", before_read=race)
    assert [issue.reason for issue in report.issues] == ["changed while it was read"]
    local_runs.restore(tmp_path / "target")
    assert (tmp_path / "target" / "file").read_bytes() == path.read_bytes()
    report, _ = local_runs.backup(tmp_path / "source")
    assert (report.changed, report.issue_count) == (1, 0)


def test_a_file_that_becomes_a_symlink_is_not_read(local_runs, tmp_path):
    write(tmp_path / "source", {"a": b"a", "b": b"b"})
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")

    def swap(path):
        if path == b"a":
            os.unlink(tmp_path / "source" / "b")
            os.symlink(secret, tmp_path / "source" / "b")

    report, _ = local_runs.backup(tmp_path / "source", before_read=swap)
    assert [issue.path for issue in report.issues] == [b"b"]


def test_a_folder_that_becomes_a_symlink_is_not_followed(local_runs, tmp_path):
    write(tmp_path / "source", {"a": b"a", "folder": {"inside": b""}})
    write(tmp_path / "elsewhere", {"secret": b"secret"})

    def swap(path):
        if path == b"a":
            os.rename(tmp_path / "source" / "folder", tmp_path / "moved")
            os.symlink(tmp_path / "elsewhere", tmp_path / "source" / "folder")

    report, _ = local_runs.backup(tmp_path / "source", before_read=swap)
    assert [issue.path for issue in report.issues] == [b"folder"]
    with local_runs.opened() as archive:
        assert b"folder/secret" not in [entry.path for entry in archive_entries(archive)]


class FailingCall:
    """A store that refuses all chunks but the first `after`."""

    def __init__(self, call, after):
        self.inner = call
        self.left = after

    def call(self, operation):
        if isinstance(operation, PutChunk):
            self.left -= 1
            if self.left < 0:
                raise ServiceUnavailableException("no room")
        return self.inner.call(operation)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_failing_store_ends_the_run_and_leaves_no_recovery_point(local_runs, tmp_path, after):
    write(tmp_path / "source", {str(n): noise(MIB, 1000 * after + n) for n in range(10, 16)})
    call, local_runs.call = local_runs.call, FailingCall(local_runs.call, after)
    with pytest.raises(ServiceUnavailableException, match="no room"):
        local_runs.backup(tmp_path / "source")
    local_runs.call = call
    jobs = [job for job in pages.items(call, ListBackupJobs()) if job.resource_arn.endswith(f":{local_runs.resource}")]
    assert [(job.state, job.status_message) for job in jobs] == [("FAILED", "no room")]
    local_runs.backup(tmp_path / "source")
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


@pytest.mark.parametrize("kind", [PutChunk, LinkChunks, ListObjects], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), PermissionError(13, "no"), OSError(5, "broken")])
def test_an_error_of_the_store_is_never_an_issue_of_a_file(local_runs, tmp_path, kind, error):
    """Even if it has the type that the operating system uses for errors of files."""

    class Broken:
        armed = False

        def call(self, operation):
            if self.armed and isinstance(operation, kind):
                raise error
            return call.call(operation)

    call, local_runs.call = local_runs.call, Broken()
    write(tmp_path / "source", {"small": noise(9000, local_runs.resource)})
    local_runs.backup(tmp_path / "source")
    before = local_runs.latest()
    write(tmp_path / "source", {f"{n}": noise(MIB, f"{local_runs.resource} {n} {kind} {error}") for n in range(6)})
    local_runs.call.armed = True
    with pytest.raises(type(error)):
        local_runs.backup(tmp_path / "source")
    local_runs.call = call
    assert local_runs.latest() == before


def test_a_lost_answer_does_no_harm(local_runs, tmp_path):
    """The object is gone when the request to delete it is repeated."""

    class Forgetful:
        def call(self, operation):
            if isinstance(operation, DeleteObject):
                call.call(operation)
            return call.call(operation)

    call, local_runs.call = local_runs.call, Forgetful()
    write(tmp_path / "source", {"file": noise(MIB, local_runs.resource)})
    local_runs.backup(tmp_path / "source")
    write(tmp_path / "source", {"file": b"another"})
    local_runs.backup(tmp_path / "source")
    with local_runs.opened() as archive:
        assert [each.number for each in archive.header.objects] == [2]


def test_a_dry_run_counts_and_stores_nothing(local_runs, tmp_path):
    write(tmp_path / "source", {"file": b"12345", "folder": {"other": b"123"}})
    report, outcome = local_runs.backup(tmp_path / "source", dry_run=True)
    assert (report.files, report.directories, report.file_bytes) == (2, 2, 8)
    assert outcome.recovery_point_arn is None


def test_a_large_folder_is_divided_into_blocks_by_its_names(local_runs, tmp_path):
    names = {f"{n:05}": b"" for n in range(2100)}
    write(tmp_path / "source", names)
    local_runs.backup(tmp_path / "source")
    write(tmp_path / "source", {"01500b": b""})
    report, _ = local_runs.backup(tmp_path / "source")
    assert (report.new, report.unchanged) == (1, 2100)
    with local_runs.opened() as archive:
        assert [entry.path for entry in archive_entries(archive)] == sorted(
            [name.encode() for name in names] + [b"01500b"]
        )


def test_only_named_paths_are_backed_up(local_runs, tmp_path):
    write(tmp_path / "source", {"a": {"x": b"x", "y": b"y"}, "b": {"z": b"z"}, "c": b"c"})
    local_runs.backup(tmp_path / "source", only=frozenset({b"a/x", b"c"}))
    local_runs.restore(tmp_path / "target")
    assert set(seen(tmp_path / "target")) == {b"", b"a", b"a/x", b"c"}


def test_markers_and_sockets_are_skipped_and_counted(local_runs, tmp_path):
    write(tmp_path / "source", {"cache": {"CACHEDIR.TAG": b"", "much": b"much"}, "file": b""})
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fsencode(tmp_path / "source" / "s"))
    listener.close()
    report, _ = local_runs.backup(tmp_path / "source", markers=frozenset({b"CACHEDIR.TAG"}))
    assert report.skipped == {"marked as excluded": 1, "socket": 1}
    local_runs.restore(tmp_path / "target")
    assert set(seen(tmp_path / "target")) == {b"", b"cache", b"file"}


def test_access_times_stay_as_they_are(local_runs, tmp_path):
    write(tmp_path / "source", {"file": b"file"})
    os.utime(tmp_path / "source" / "file", ns=(1, 2))
    local_runs.backup(tmp_path / "source")
    assert (tmp_path / "source" / "file").stat().st_atime_ns == 1


def test_times_are_read_by_the_given_clock(local_runs, tmp_path):
    write(tmp_path / "source", {"file": b"file"})
    assert local_runs.backup(tmp_path / "source", now=in_an_hour)[1].recovery_point_arn


def test_another_file_system_is_skipped_on_request(local_runs, tmp_path):
    """It is skipped below each PATH. A PATH itself may lie on any file system."""
    write(tmp_path / "source", {"file": b"file", "other": {}})
    mounted = tmp_path / "source" / "other" / "mounted"
    with small_disk(mounted, 1):
        write(mounted, {"there": b"there"})
        report, _ = local_runs.backup(tmp_path / "source", one_file_system=True)
        assert (report.skipped, report.files) == ({"another file system": 1}, 1)
        report, _ = local_runs.backup(tmp_path / "source", only=frozenset({b"other/mounted"}), one_file_system=True)
        assert (report.skipped, report.files) == ({}, 1)


class Watched:
    """A store that counts heartbeats."""

    def __init__(self, call):
        self.inner = call
        self.heartbeats = 0

    def call(self, operation):
        self.heartbeats += isinstance(operation, ListObjects) and operation.max_results == 1
        return self.inner.call(operation)


def test_heartbeats_reach_the_job(local_runs):
    """They show that a run is alive which sends nothing for a long time."""
    watched = Watched(local_runs.call)
    job = open_job(watched, "Default", "heartbeats", {})
    with heartbeat(watched, job.job_id, seconds_between=0.001):
        until(lambda: watched.heartbeats >= 3)
    job.give_up(RuntimeError())


def test_a_run_has_a_heartbeat_from_its_first_file_to_its_end(local_runs, tmp_path):
    write(tmp_path / "source", {"a": b"a"})
    names = []
    local_runs.backup(tmp_path / "source", before_read=lambda _: names.extend(t.name for t in threading.enumerate()))
    assert "heartbeat" in names
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


class ProgressNotes:
    """A store that notes the progress in the report at each chunk."""

    def __init__(self, call, operations):
        self.call_below = call
        self.operations = operations
        self.report = Report()
        self.seen = []

    def call(self, operation):
        if isinstance(operation, self.operations):
            self.seen.append(self.report.done_bytes)
        return self.call_below.call(operation)


def test_progress_grows_within_a_large_file(local_runs, tmp_path):
    """In a backup and in a restore."""
    write(tmp_path / "source", {"large": noise(40 * MIB), "small": b"small"})
    watched = ProgressNotes(local_runs.call, (LinkChunks, PutChunk))
    options = BackupOptions(root=os.fsencode(tmp_path / "source"), vault="Default", resource=local_runs.resource)
    backup_tree(watched, options, watched.report, now=in_an_hour)
    assert any(0 < done < 30 * MIB for done in watched.seen)
    assert watched.report.done_bytes == watched.report.file_bytes == 40 * MIB + 5
    watched = ProgressNotes(local_runs.call, GetChunk)
    with open_archive(watched, find_point(watched, "latest", resource=local_runs.resource), "test") as archive:
        restore_tree(archive, RestoreOptions(target=os.fsencode(tmp_path / "target")), watched.report)
    assert any(0 < done < 30 * MIB for done in watched.seen)
    assert watched.report.done_bytes == watched.report.new_bytes == 40 * MIB + 5


def test_existing_files_count_as_progress_of_a_restore(local_runs, tmp_path):
    write(tmp_path / "source", {"large": noise(2 * MIB), "one": b"one"})
    os.link(tmp_path / "source" / "one", tmp_path / "source" / "two")
    local_runs.backup(tmp_path / "source")
    local_runs.restore(tmp_path / "target")
    (tmp_path / "target" / "one").unlink()
    report = local_runs.restore(tmp_path / "target")
    assert (report.new, report.new_bytes, report.done_bytes) == (2, 3, report.file_bytes)
