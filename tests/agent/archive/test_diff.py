"""Differences between two archives, against a model that compares the trees on disk."""

from __future__ import annotations

import os
import random
import shutil
import stat

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryostore.agent.archive.diff import Change, compare_archives
from cryostore.core.limits import KIB, MIB
from cryostore.model.chunks import GetChunk
from support.archives.agent import Runs, write
from support.archives.single_file import disks, streams


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def differences(runs, old, new):
    """The differences between two recovery points, by path."""
    with runs.opened(old) as before, runs.opened(new) as after:
        return {each.path: each.change for each in compare_archives(before, after)}


def facts(root):
    """All entries of a tree, each with its substance (type, content) and its metadata."""
    found = {}
    for place, folders, files in os.walk(os.fsencode(root)):
        for name in folders + files:
            path = os.path.join(place, name)
            status = os.lstat(path)
            content = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            time = None if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
            substance = (stat.S_IFMT(status.st_mode), content)
            found[os.path.relpath(path, os.fsencode(root))] = (substance, (status.st_mode, time))
    return found


def expected(old, new):
    found = {}
    for path in old.keys() | new.keys():
        if path not in new:
            found[path] = Change.REMOVED
        elif path not in old:
            found[path] = Change.ADDED
        elif old[path][0] != new[path][0]:
            found[path] = Change.CHANGED
        elif old[path] != new[path]:
            found[path] = Change.METADATA
    return found


def test_every_kind_of_difference(runs, tmp_path):
    root = tmp_path / "source"
    write(root, {"same": b"same", "gone": b"", "edited": b"1", "mode": b"", "large": noise(6 * MIB), "late": b"x"})
    write(root, {"moved": noise(3 * MIB, 2), "folder": {"inside": b""}, "kind": b"", "attribute": b""})
    os.symlink("one", root / "link")
    runs.backup(root)
    first = runs.latest()
    write(root, {"new": b"", "edited": b"2", "large": noise(3 * MIB) + b"!" + noise(6 * MIB)[3 * MIB + 1 :]})
    os.unlink(root / "gone")
    os.chmod(root / "mode", 0o600)
    os.utime(root / "late", ns=(1, 1))
    os.setxattr(root / "attribute", "user.x", b"x")
    os.unlink(root / "link")
    os.symlink("two", root / "link")
    os.unlink(root / "kind")
    os.mkdir(root / "kind")
    status = os.stat(root / "moved")
    shutil.copy2(root / "moved", root / "copy")  # the same bytes, which the second run stores again
    os.rename(root / "copy", root / "moved")
    os.utime(root / "moved", ns=(status.st_atime_ns, status.st_mtime_ns))
    write(root / "folder", {"other": b""})
    runs.backup(root)
    assert differences(runs, first, runs.latest()) == {
        b"new": Change.ADDED,
        b"folder/other": Change.ADDED,
        b"gone": Change.REMOVED,
        b"edited": Change.CHANGED,
        b"large": Change.CHANGED,
        b"link": Change.CHANGED,
        b"kind": Change.CHANGED,
        b"mode": Change.METADATA,
        b"late": Change.METADATA,
        b"attribute": Change.METADATA,
    }
    assert differences(runs, first, first) == {}


def test_no_content_is_read(local_runs, tmp_path):
    write(tmp_path / "source", {"large": noise(6 * MIB)})
    local_runs.backup(tmp_path / "source")
    first = local_runs.latest()
    write(tmp_path / "source", {"large": noise(6 * MIB, 2)})
    local_runs.backup(tmp_path / "source")
    read = []

    class Counting:
        def call(self, operation):
            answer = call.call(operation)
            if isinstance(operation, GetChunk):
                read.append(len(answer.data))
            return answer

    call, local_runs.call = local_runs.call, Counting()
    assert differences(local_runs, first, local_runs.latest()) == {b"large": Change.CHANGED}
    assert sum(read) < 4 * KIB


def test_differences_of_streams_and_disks(local_runs, tmp_path):
    runs = streams(local_runs)
    data = noise(3 * MIB)
    points = []
    for content in (data, data, data[:-1] + b"x"):
        runs.stream(content, now=lambda: 1000)
        points.append(local_runs.latest())
    assert differences(local_runs, points[0], points[1]) == {}
    assert differences(local_runs, points[0], points[2]) == {b"file": Change.CHANGED}
    other = Runs(local_runs.call, f"{local_runs.resource}-disk")
    image = tmp_path / "disk.raw"
    for content in (data, data, b"x" + data[1:]):
        image.write_bytes(content)
        disks(other).disk(image, now=lambda: 1000)
        points.append(other.latest())
    assert differences(other, points[3], points[4]) == {}
    assert differences(other, points[3], points[5]) == {b"file": Change.CHANGED}


def test_folder_names_that_sort_before_a_slash(local_runs, tmp_path):
    """`a-b` sorts before `a/b` as text, and after it in an archive."""
    deep = {"x": b"", "y": b""}
    write(tmp_path / "source", {"a": {"b": dict(deep), "c": b""}, "a-b": dict(deep), "a.b": dict(deep)})
    local_runs.backup(tmp_path / "source")
    first = local_runs.latest()
    os.unlink(tmp_path / "source" / "a" / "b" / "y")
    os.unlink(tmp_path / "source" / "a-b" / "x")
    write(tmp_path / "source", {"a": {"b": {"z": b""}, "d": b""}, "a.b": {"w": b""}})
    local_runs.backup(tmp_path / "source")
    assert differences(local_runs, first, local_runs.latest()) == {
        b"a/b/y": Change.REMOVED,
        b"a/b/z": Change.ADDED,
        b"a/d": Change.ADDED,
        b"a-b/x": Change.REMOVED,
        b"a.b/w": Change.ADDED,
    }


NAMES = st.sampled_from([b"a", b"b", b"a.b", b"a-b", b"\xff", b"new\nline", b"~"])
CONTENTS = st.sampled_from([b"", b"1", b"2", b"long" * 200_000])


@st.composite
def trees(draw, depth=2):
    """A tree: file contents, targets of symlinks, and folders, by name."""
    kinds = [CONTENTS, st.sampled_from(["x", "y"])] + ([trees(depth=depth - 1)] if depth else [])
    return draw(st.dictionaries(NAMES, st.one_of(kinds), max_size=5))


def build(root, tree):
    os.makedirs(root)
    for name, what in tree.items():
        path = os.path.join(root, name)
        if isinstance(what, dict):
            build(path, what)
        elif isinstance(what, str):
            os.symlink(what, path)
            os.utime(path, ns=(1, 1), follow_symlinks=False)
        else:
            with open(path, "wb") as file:
                file.write(what)
            os.utime(path, ns=(1, 1))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=trees(), new=trees(), number=st.uuids())
def test_differences_of_random_trees_match_the_model(store, tmp_path, old, new, number):
    runs = Runs(store, f"diff-{number}")
    seen, points = [], []
    for tree in (old, new):
        root = tmp_path / str(number)
        shutil.rmtree(root, ignore_errors=True)
        build(os.fsencode(root), tree)
        runs.backup(root)
        seen.append(facts(root))
        points.append(runs.latest())
    with runs.opened(points[0]) as before, runs.opened(points[1]) as after:
        found = list(compare_archives(before, after))
    assert {each.path: each.change for each in found} == expected(*seen)
    keys = [(each.path.rpartition(b"/")[0].replace(b"/", b"\0"), each.path.rpartition(b"/")[2]) for each in found]
    assert keys == sorted(keys)
