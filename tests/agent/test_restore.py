"""Restoring: into what is there already, only what is wanted, never out of the target, whatever the archive says."""

from __future__ import annotations

import errno
import os
import random

import pytest

from cryostore.agent.block import Extra, ExtraKind, Kind, encode
from cryostore.agent.entry import NO_CONTENT, Content, Row
from cryostore.agent.errors import ArchiveDamagedError, TargetError
from cryostore.agent.header import CATALOG, Header, content_name
from cryostore.agent.job import open_job
from cryostore.agent.patterns import Patterns
from cryostore.agent.upload import ObjectUpload
from cryostore.core.digest import Payload, sha256
from cryostore.core.errors import ConfigurationError, StorageFullError
from cryostore.core.limits import MIB
from cryostore.model.chunks import PutChunk
from cryostore.model.restores import GetChunk
from support.agent import seen, write


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


# --- into what is there ---


@pytest.fixture
def backed_up(local_runs, tmp_path):
    """A small tree that is backed up; its folder."""
    write(
        tmp_path / "source",
        {"a": b"archived a", "folder": {"b": b"archived b"}, "link": lambda path: os.symlink("a", path)},
    )
    for name in ("a", "folder/b"):
        os.utime(tmp_path / "source" / name, ns=(1, 1_000_000_000_000_000_000))
    local_runs.backup(tmp_path / "source")
    return tmp_path / "source"


def standing(target, mtime_ns):
    write(target, {"a": b"other", "folder": {"b": b"archived b"}, "extra": b"extra", "more": {"extra": b""}})
    os.utime(target / "a", ns=(1, mtime_ns))
    os.utime(target / "folder" / "b", ns=(1, 1_000_000_000_000_000_000))


OLDER, NEWER = 900_000_000_000_000_000, 1_100_000_000_000_000_000


@pytest.mark.parametrize(
    ("overwrite", "mtime_ns", "replaced"),
    [
        ("never", OLDER, False),
        ("newer", OLDER, True),
        ("newer", NEWER, False),
        ("always", NEWER, True),
        ("changed", OLDER, True),
        ("changed", NEWER, True),
    ],
)
def test_what_is_there_is_treated_as_asked(local_runs, backed_up, tmp_path, overwrite, mtime_ns, replaced):
    target = tmp_path / "target"
    standing(target, mtime_ns)
    report = local_runs.restore(target, overwrite=overwrite)
    assert (target / "a").read_bytes() == (b"archived a" if replaced else b"other")
    assert (target / "extra").read_bytes() == b"extra"
    assert report.issue_count == 0
    assert os.readlink(target / "link") == "a"


def test_what_has_not_changed_is_not_written(local_runs, backed_up, tmp_path):
    target = tmp_path / "target"
    local_runs.restore(target)
    inode = (target / "a").stat().st_ino
    os.chmod(target / "a", 0o600)
    report = local_runs.restore(target)
    assert (report.new, report.unchanged) == (1, 2)  # the symlink is made anew: it costs no more than to compare it
    assert (target / "a").stat().st_ino == inode
    assert seen(target) == seen(backed_up)


def test_delete_makes_the_target_what_the_recovery_point_is(local_runs, backed_up, tmp_path):
    target = tmp_path / "target"
    standing(target, NEWER)
    outside = tmp_path / "outside"
    write(outside, {"kept": b"kept"})
    os.symlink(outside, target / "more" / "way out")
    report = local_runs.restore(target, delete=True)
    assert report.deleted == 4
    assert seen(target) == seen(backed_up)
    assert (outside / "kept").read_bytes() == b"kept"


def test_a_dry_run_changes_nothing(local_runs, backed_up, tmp_path):
    target = tmp_path / "target"
    standing(target, NEWER)
    before = seen(target)
    report = local_runs.restore(target, delete=True, dry_run=True)
    assert (report.new, report.unchanged, report.deleted) == (2, 1, 2)
    assert seen(target) == before


def test_only_what_is_at_a_path_is_restored(local_runs, backed_up, tmp_path):
    local_runs.restore(tmp_path / "one", path=b"folder")
    assert set(seen(tmp_path / "one")) == {b"", b"b"}
    local_runs.restore(tmp_path / "two", path=b"folder/b")
    assert set(seen(tmp_path / "two")) == {b"", b"b"}
    with pytest.raises(ConfigurationError, match="has no 'folder/c'"):
        local_runs.restore(tmp_path / "three", path=b"folder/c")


def patterns(*lines):
    found = Patterns(lines)
    return lambda path, is_directory: found.fit(path, is_directory=is_directory)


def test_include_and_exclude_choose(local_runs, tmp_path):
    write(tmp_path / "source", {"a": {"x.txt": b"", "y": {"z.txt": b"", "z.bin": b""}}, "b": {"c.bin": b""}})
    local_runs.backup(tmp_path / "source")
    local_runs.restore(tmp_path / "one", include=patterns("*.txt"))
    assert set(seen(tmp_path / "one")) == {b"", b"a", b"a/x.txt", b"a/y", b"a/y/z.txt"}
    local_runs.restore(tmp_path / "two", exclude=patterns("y", "*.bin"))
    assert set(seen(tmp_path / "two")) == {b"", b"a", b"a/x.txt", b"b"}
    source, target = seen(tmp_path / "source"), seen(tmp_path / "one")
    assert target[b"a/y"] == source[b"a/y"]


def test_a_folder_in_the_place_of_a_file_goes_only_if_it_is_empty_or_delete_is_asked_for(
    local_runs, backed_up, tmp_path
):
    target = tmp_path / "target"
    write(target, {"a": {"precious": b"precious"}})
    report = local_runs.restore(target)
    assert [(issue.path, issue.reason) for issue in report.issues] == [(b"a", os.strerror(errno.ENOTEMPTY))]
    assert (target / "a" / "precious").exists()
    assert local_runs.restore(target, delete=True).issue_count == 0
    assert seen(target) == seen(backed_up)


@pytest.mark.parametrize("overwrite", ["never", "newer", "always", "changed"])
def test_a_symlink_in_the_target_is_never_followed(local_runs, backed_up, tmp_path, overwrite):
    target, outside = tmp_path / "target", tmp_path / "outside"
    write(outside, {"a": b"untouched"})
    target.mkdir()
    os.symlink(outside, target / "folder")
    os.symlink(outside / "a", target / "a")
    before = seen(outside)
    local_runs.restore(target, overwrite=overwrite)
    assert seen(outside) == before


def test_chunks_that_the_target_has_are_not_fetched(runs, tmp_path):
    write(tmp_path / "source", {"large": noise(12 * MIB)})
    runs.backup(tmp_path / "source")
    data = bytearray(noise(12 * MIB))
    data[6 * MIB] ^= 1
    write(tmp_path / "target", {"large": bytes(data)})
    fetched = []

    class Counting:
        def call(self, operation):
            answer = call.call(operation)
            if isinstance(operation, GetChunk):
                fetched.append(answer.length)
            return answer

    call, runs.call = runs.call, Counting()
    runs.restore(tmp_path / "target")
    assert sum(fetched) < 5 * MIB
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_target_that_is_no_folder_is_refused(local_runs, backed_up, tmp_path):
    write(tmp_path, {"file": b""})
    with pytest.raises(TargetError):
        local_runs.restore(tmp_path / "file")


def test_a_full_target_ends_the_restore(local_runs, backed_up, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageFullError):
        local_runs.restore(tmp_path / "target")
    assert set(seen(tmp_path / "target")) <= {b"", b"folder", b"link"}


# --- archives that no agent has written ---

NOW_NS = 1_000_000_000_000_000_000
FILE, FOLDER, LINK = 0o100644, 0o040755, 0o120777


def row(mode, size=0, links=1, inode=1):
    return Row(mode, 0, 0, links, 0, size, NOW_NS, NOW_NS, inode).pack()


def block(path, entries, extras=None):
    """A block of names with their modes; the files hold the first byte of the content."""
    names = b"".join(name + b"\0" for name, _ in entries)
    rows = [row(mode, size=1 if mode == FILE else 0, inode=index) for index, (_, mode) in enumerate(entries)]
    contents = [(Content(1, 0, 0) if mode == FILE else NO_CONTENT).pack() for _, mode in entries]
    return encode(Kind.DIRECTORY, path, names, rows, contents, extras or {})


ROOT = encode(Kind.ROOT, b"", b"\0", [row(FOLDER)], [NO_CONTENT.pack()], {})


def put(runs, catalog, content=b"x", header=None):
    """Commit an archive made of these bytes."""
    job = open_job(runs.call, "Default", runs.resource, {})
    summaries = {}
    for name, data, blob in (
        (content_name(1), content, None),
        (CATALOG, catalog, plain_header() if header is None else header),
    ):
        upload = ObjectUpload(runs.call, job.job_id, name)
        upload.set(upload.reserve(), sha256(data))
        chunk = Payload(data)
        runs.call.call(
            PutChunk(
                backup_job_id=job.job_id,
                upload_id=upload.open(),
                chunk_index=0,
                data=chunk,
                length=len(chunk),
                checksum=chunk.sha256.hex(),
                checksum_algorithm="SHA256",
            )
        )
        upload.complete(blob)
        summaries[name] = upload.summary()
    job.commit(summaries, {}, 0)


def plain_header():
    return Header(root=b"/x", entries=0, files=0, file_bytes=0, objects=[], users={}, groups={}).encode()


HOSTILE_NAMES = {
    "the folder above": [(b"..", FILE)],
    "the folder itself": [(b".", FILE)],
    "a path": [(b"../out", FILE)],
    "an absolute path": [(b"/tmp/out", FILE)],
    "no name": [(b"", FILE)],
    "twice": [(b"a", FILE), (b"a", FILE)],
    "unsorted": [(b"b", FILE), (b"a", FILE)],
}


@pytest.mark.parametrize("entries", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_hostile_names_are_refused(local_runs, tmp_path, entries):
    put(local_runs, ROOT + block(b"", entries))
    before = set(os.listdir(tmp_path))
    with pytest.raises(ArchiveDamagedError):
        local_runs.restore(tmp_path / "target")
    assert set(os.listdir(tmp_path)) - before == {"target"}
    assert os.listdir(tmp_path / "target") == []


@pytest.mark.parametrize("path", [b"..", b"../out", b"/etc", b"a/../../out", b"a//b", b"."], ids=repr)
def test_hostile_paths_are_refused(local_runs, tmp_path, path):
    put(local_runs, ROOT + block(b"", [(b"a", FOLDER)]) + block(path, [(b"file", FILE)]))
    with pytest.raises(ArchiveDamagedError):
        local_runs.restore(tmp_path / "target")
    assert not (tmp_path / "out").exists()


def test_a_link_and_then_what_should_be_behind_it(local_runs, tmp_path):
    """The classic: a symlink that leads out, then a folder of the same name with a file in it."""
    out = tmp_path / "out"
    out.mkdir()
    link = {0: [Extra(ExtraKind.LINK_TARGET, os.fsencode(out))]}
    put(local_runs, ROOT + block(b"", [(b"a", LINK)], link) + block(b"a", [(b"file", FILE)]))
    local_runs.restore(tmp_path / "target")
    assert os.listdir(out) == []


def test_a_target_that_becomes_a_link_while_it_is_restored_is_not_followed(local_runs, tmp_path):
    out, target = tmp_path / "out", tmp_path / "target"
    out.mkdir()
    write(tmp_path / "source", {"a": {"file": b"file"}})
    local_runs.backup(tmp_path / "source")

    class Racing:
        def call(self, operation):
            if isinstance(operation, GetChunk) and (target / "a").is_dir() and not (target / "a").is_symlink():
                (target / "a").rename(target / "moved")
                os.symlink(out, target / "a")
            return call.call(operation)

    call, local_runs.call = local_runs.call, Racing()
    local_runs.restore(target)
    assert os.listdir(out) == []


DAMAGED = {
    "no content object": ROOT + encode(Kind.DIRECTORY, b"", b"a\0", [row(FILE, 1)], [Content(9, 0, 0).pack()], {}),
    "no such chunk": ROOT + encode(Kind.DIRECTORY, b"", b"a\0", [row(FILE, 1)], [Content(1, 7, 0).pack()], {}),
    "behind the chunk": ROOT + encode(Kind.DIRECTORY, b"", b"a\0", [row(FILE, 1)], [Content(1, 0, 5).pack()], {}),
    "longer than the object": ROOT
    + encode(Kind.DIRECTORY, b"", b"a\0", [row(FILE, 99)], [Content(1, 0, 0).pack()], {}),
    "no content": ROOT + encode(Kind.DIRECTORY, b"", b"a\0", [row(FILE, 1)], [NO_CONTENT.pack()], {}),
    "of no kind": ROOT + encode(Kind.DIRECTORY, b"", b"a\0", [row(0o777)], [NO_CONTENT.pack()], {}),
    "holes that overlap": ROOT
    + encode(
        Kind.DIRECTORY,
        b"",
        b"a\0",
        [row(FILE, 100)],
        [NO_CONTENT.pack()],
        {0: [Extra(ExtraKind.HOLES, b"".join(n.to_bytes(8, "little") for n in (0, 60, 40, 60)))]},
    ),
    "cut short": ROOT[:-1],
    "a length that lies": (len(ROOT) + 1).to_bytes(4, "little") + ROOT[4:],
    "an unknown kind": ROOT + ROOT[:4] + b"\7" + ROOT[5:],
    "extras that lie": ROOT
    + encode(Kind.DIRECTORY, b"", b"a\0", [row(FILE)], [NO_CONTENT.pack()], {5: [Extra(1, b"")]}),
}


@pytest.mark.parametrize("catalog", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_catalog_is_told_as_such(local_runs, tmp_path, catalog):
    put(local_runs, catalog)
    with pytest.raises(ArchiveDamagedError):
        local_runs.restore(tmp_path / "target")


@pytest.mark.parametrize("header", [b"", b"{}", b"[]", b"\xff", plain_header().replace(b'"format":1', b'"format":2')])
def test_a_damaged_header_is_told_as_such(local_runs, tmp_path, header):
    put(local_runs, ROOT, header=header)
    with pytest.raises(ArchiveDamagedError):
        local_runs.restore(tmp_path / "target")
