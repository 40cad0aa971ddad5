"""Restore run of a file tree: existing entries, selection, damaged and hostile archives, dry runs."""

from __future__ import annotations

import os

import pytest

from cryostore.agent.block import Extra, ExtraKind, Kind, decode, encode
from cryostore.agent.entry import NO_CONTENT, Content, Row
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.report import Report
from cryostore.agent.restore.tree_restore import TreeRestoreOptions, restore_tree
from cryostore.agent.source.selection import Patterns
from cryostore.core.errors import ConfigurationError
from cryostore.model.chunks import GetChunk
from support.archives.agent import seen, write
from support.archives.made_archive import put

# --- existing entries ---


def write_existing(target, mtime_ns):
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
def test_overwrite_decides_what_happens_to_existing_files(
    local_runs, backed_up, tmp_path, overwrite, mtime_ns, replaced
):
    target = tmp_path / "target"
    write_existing(target, mtime_ns)
    report = local_runs.restore(target, overwrite=overwrite)
    assert (target / "a").read_bytes() == (b"archived a" if replaced else b"other")
    assert (target / "extra").read_bytes() == b"extra"
    assert report.issue_count == 0
    assert os.readlink(target / "link") == "a"


def test_unchanged_files_are_not_written(local_runs, backed_up, tmp_path):
    target = tmp_path / "target"
    local_runs.restore(target)
    inode = (target / "a").stat().st_ino
    os.chmod(target / "a", 0o600)
    report = local_runs.restore(target)
    assert (report.new, report.unchanged) == (0, 3)
    assert (target / "a").stat().st_ino == inode
    assert seen(target) == seen(backed_up)


def test_delete_makes_the_target_equal_to_the_recovery_point(local_runs, backed_up, tmp_path):
    target = tmp_path / "target"
    write_existing(target, NEWER)
    outside = tmp_path / "outside"
    write(outside, {"kept": b"kept"})
    os.symlink(outside, target / "more" / "way out")
    report = local_runs.restore(target, delete=True)
    assert report.deleted == 4
    assert seen(target) == seen(backed_up)
    assert (outside / "kept").read_bytes() == b"kept"


def test_a_dry_run_changes_nothing(local_runs, backed_up, tmp_path):
    target = tmp_path / "target"
    write_existing(target, NEWER)
    before = seen(target)
    report = local_runs.restore(target, delete=True, dry_run=True)
    assert seen(target) == before
    real = local_runs.restore(target, delete=True)
    assert (report.new, report.unchanged, report.deleted) == (real.new, real.unchanged, real.deleted) == (2, 1, 3)


def test_a_path_restores_only_the_entries_below_it(local_runs, backed_up, tmp_path):
    local_runs.restore(tmp_path / "one", path=b"folder")
    assert set(seen(tmp_path / "one")) == {b"", b"b"}
    local_runs.restore(tmp_path / "two", path=b"folder/b")
    assert set(seen(tmp_path / "two")) == {b"", b"b"}
    with pytest.raises(ConfigurationError, match="does not contain 'folder/c'"):
        local_runs.restore(tmp_path / "three", path=b"folder/c")


def patterns(*lines):
    found = Patterns(lines)
    return lambda path, is_directory: found.fit(path, is_directory=is_directory)


def test_include_and_exclude_select_entries(local_runs, tmp_path):
    write(tmp_path / "source", {"a": {"x.txt": b"", "y": {"z.txt": b"", "z.bin": b""}}, "b": {"c.bin": b""}})
    local_runs.backup(tmp_path / "source")
    local_runs.restore(tmp_path / "one", include=patterns("*.txt"))
    assert set(seen(tmp_path / "one")) == {b"", b"a", b"a/x.txt", b"a/y", b"a/y/z.txt"}
    local_runs.restore(tmp_path / "two", exclude=patterns("y", "*.bin"))
    assert set(seen(tmp_path / "two")) == {b"", b"a", b"a/x.txt", b"b"}
    source, target = seen(tmp_path / "source"), seen(tmp_path / "one")
    assert target[b"a/y"] == source[b"a/y"]


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


# --- damaged and hostile archives ---

NOW_NS = 1_000_000_000_000_000_000
FILE, FOLDER, LINK = 0o100644, 0o040755, 0o120777


def row(mode, size=0, links=1, inode=1):
    return Row(mode, 0, 0, links, 0, size, NOW_NS, NOW_NS, inode).pack()


def block(path, entries, extras=None):
    """A block of entries with these names and modes. Each file is the first byte of the content object."""
    names = b"".join(name + b"\0" for name, _ in entries)
    rows = [row(mode, size=1 if mode == FILE else 0, inode=index) for index, (_, mode) in enumerate(entries)]
    contents = [(Content(1, 0, 0) if mode == FILE else NO_CONTENT).pack() for _, mode in entries]
    return encode(Kind.DIRECTORY, path, names, rows, contents, extras or {})


ROOT = encode(Kind.ROOT, b"", b"\0", [row(FOLDER)], [NO_CONTENT.pack()], {})


HOSTILE_NAMES = {
    "the folder above": [(b"..", FILE)],
    "the folder itself": [(b".", FILE)],
    "a path": [(b"../out", FILE)],
    "an absolute path": [(b"/tmp/out", FILE)],
    "an empty name": [(b"", FILE)],
    "the same name twice": [(b"a", FILE), (b"a", FILE)],
    "unsorted names": [(b"b", FILE), (b"a", FILE)],
}


@pytest.mark.parametrize("entries", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_hostile_names_are_refused(local_runs, tmp_path, entries):
    put(local_runs, ROOT + block(b"", entries))
    before = set(os.listdir(tmp_path))
    report = local_runs.restore(tmp_path / "target")
    assert "listing is damaged" in report.issues[0].reason
    assert set(os.listdir(tmp_path)) - before == {"target"}
    assert os.listdir(tmp_path / "target") == []


@pytest.mark.parametrize("path", [b"..", b"../out", b"/etc", b"a/../../out", b"a//b", b"."], ids=repr)
def test_hostile_paths_are_refused(local_runs, tmp_path, path):
    put(local_runs, ROOT + block(b"", [(b"a", FOLDER)]) + block(path, [(b"file", FILE)]))
    report = local_runs.restore(tmp_path / "target")
    assert "listing is damaged" in report.issues[0].reason
    assert os.listdir(tmp_path / "target") == ["a"]
    assert not (tmp_path / "out").exists()


def test_entries_below_a_restored_symlink_are_not_written_through_it(local_runs, tmp_path):
    """The classic attack: a symlink out of the target, then a folder of the same name with a file in it."""
    out = tmp_path / "out"
    out.mkdir()
    link = {0: [Extra(ExtraKind.LINK_TARGET, os.fsencode(out))]}
    put(local_runs, ROOT + block(b"", [(b"a", LINK)], link) + block(b"a", [(b"file", FILE)]))
    local_runs.restore(tmp_path / "target")
    assert os.listdir(out) == []


def test_a_directory_that_becomes_a_symlink_during_the_restore_is_not_followed(local_runs, tmp_path):
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


DAMAGED_ENTRIES = {
    "no content object": ROOT + encode(Kind.DIRECTORY, b"", b"a\0", [row(FILE, 1)], [Content(9, 0, 0).pack()], {}),
    "no such chunk": ROOT + encode(Kind.DIRECTORY, b"", b"a\0", [row(FILE, 1)], [Content(1, 7, 0).pack()], {}),
    "beyond the chunk": ROOT + encode(Kind.DIRECTORY, b"", b"a\0", [row(FILE, 1)], [Content(1, 0, 5).pack()], {}),
    "longer than the object": ROOT
    + encode(Kind.DIRECTORY, b"", b"a\0", [row(FILE, 99)], [Content(1, 0, 0).pack()], {}),
    "no content": ROOT + encode(Kind.DIRECTORY, b"", b"a\0", [row(FILE, 1)], [NO_CONTENT.pack()], {}),
    "of unknown kind": ROOT + encode(Kind.DIRECTORY, b"", b"a\0", [row(0o777)], [NO_CONTENT.pack()], {}),
    "holes that overlap": ROOT
    + encode(
        Kind.DIRECTORY,
        b"",
        b"a\0",
        [row(FILE, 100)],
        [NO_CONTENT.pack()],
        {0: [Extra(ExtraKind.HOLES, b"".join(n.to_bytes(8, "little") for n in (0, 60, 40, 60)))]},
    ),
}
PARTLY_DAMAGED = {
    "an unknown kind": ROOT[:4] + b"\7" + ROOT[5:],
    "extras of a missing entry": encode(
        Kind.DIRECTORY, b"", b"a\0", [row(FILE)], [NO_CONTENT.pack()], {5: [Extra(1, b"")]}
    ),
    "a name that is a path": block(b"c", [(b"..", FILE)]),
}


@pytest.mark.parametrize("damaged", PARTLY_DAMAGED.values(), ids=PARTLY_DAMAGED)
def test_a_damaged_block_is_an_issue_and_the_others_are_restored(local_runs, tmp_path, damaged):
    put(local_runs, ROOT + damaged + block(b"d", [(b"file", FILE)]))
    report = local_runs.restore(tmp_path / "target")
    assert [issue.path for issue in report.issues] == [b"", b"d"]
    assert (tmp_path / "target" / "d" / "file").read_bytes() == b"x"


DAMAGED = {
    "nothing": b"",
    "cut short": ROOT[:-1],
    "a wrong length": (len(ROOT) + 1).to_bytes(4, "little") + ROOT[4:],
}


@pytest.mark.parametrize("catalog", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_listing_is_reported_as_damage(local_runs, tmp_path, catalog):
    put(local_runs, catalog)
    with pytest.raises(ArchiveDamagedError):
        local_runs.restore(tmp_path / "target")


@pytest.mark.parametrize("catalog", DAMAGED_ENTRIES.values(), ids=DAMAGED_ENTRIES)
def test_a_damaged_entry_is_an_issue_and_the_others_are_restored(local_runs, tmp_path, catalog):
    put(local_runs, ROOT + with_sibling(catalog[len(ROOT) :]))
    report = local_runs.restore(tmp_path / "target")
    assert [issue.path for issue in report.issues] == [b"a"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "target").iterdir()} == {"b": b"x"}


def with_sibling(data):
    """A block with one more entry: a sound file of one byte."""
    (found,) = decode(data)
    rows, contents = [found.rows, row(FILE, 1)], [found.contents, Content(1, 0, 0).pack()]
    return encode(Kind.DIRECTORY, b"", found.names + b"b\0", rows, contents, found.extras_of())


# --- targets that do not exist, races, impossible values ---


def test_a_dry_run_does_not_create_the_target(local_runs, backed_up, tmp_path):
    report = local_runs.restore(tmp_path / "not" / "there", delete=True, dry_run=True)
    assert (report.new, report.directories, report.issue_count) == (3, 1, 0)
    assert not (tmp_path / "not").exists()


FIFO, DEVICE = 0o010600, 0o020600


@pytest.mark.parametrize("mode", [FIFO, LINK], ids=["pipe", "link"])
def test_attributes_are_not_set_on_an_entry_swapped_by_another_process(local_runs, tmp_path, monkeypatch, mode):
    """A user who can write to the target puts a link out of it under the temporary name, before attributes are set."""
    if os.geteuid():
        pytest.skip("only root sets owners")
    out = tmp_path / "out"
    out.write_bytes(b"untouched")
    before = os.lstat(out)
    extras = {0: [Extra(ExtraKind.LINK_TARGET, b"x")]} if mode == LINK else {}
    put(local_runs, ROOT + block(b"", [(b"a", mode)], extras))

    def swapped(made):
        def make(*arguments, dir_fd, **more):
            made(*arguments, dir_fd=dir_fd, **more)
            name = arguments[-1] if mode == LINK else arguments[0]
            os.unlink(name, dir_fd=dir_fd)
            os.link(out, name, dst_dir_fd=dir_fd)

        return make

    name = "symlink" if mode == LINK else "mkfifo"
    monkeypatch.setattr(os, name, swapped(getattr(os, name)))
    report = local_runs.restore(tmp_path / "target")
    assert report.issue_count == 1
    after = os.lstat(out)
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("mode", "extra"),
    [
        (LINK, Extra(ExtraKind.LINK_TARGET, b"a\0b")),
        (DEVICE, Extra(ExtraKind.DEVICE_NUMBER, b"\xff" * 8)),
    ],
    ids=["a symlink with a NUL byte", "an impossible device number"],
)
def test_impossible_field_values_are_reported_as_damage(local_runs, tmp_path, mode, extra):
    put(local_runs, ROOT + block(b"", [(b"a", mode), (b"b", FILE)], {0: [extra]}))
    report = local_runs.restore(tmp_path / "target")
    assert [issue.path for issue in report.issues] == [b"a"]
    assert os.listdir(tmp_path / "target") == ["b"]


# --- dry runs ---


def test_a_dry_run_announces_what_it_would_write_and_delete(local_runs, backed_up, tmp_path):
    target = tmp_path / "target"
    write_existing(target, NEWER)
    os.mkfifo(target / "link")
    os.unlink(target / "folder" / "b")
    os.rmdir(target / "folder")
    announced = []
    with local_runs.opened() as archive:
        options = TreeRestoreOptions(target=os.fsencode(target), delete=True, dry_run=True)
        restore_tree(archive, options, Report(), on_entry=lambda mark, path: announced.append((mark, path)))
    assert sorted(announced) == [
        ("+", b"folder"),
        ("+", b"folder/b"),
        ("-", b"extra"),
        ("-", b"more"),
        ("C", b"a"),
        ("C", b"link"),
    ]
