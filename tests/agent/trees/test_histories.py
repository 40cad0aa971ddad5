"""Histories of random trees: each recovery point restores the tree as it was at that backup."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.report import Report
from cryostore.agent.verification.archive_check import verify_archive
from cryostore.core.limits import KIB
from support.archives.agent import Runs, in_an_hour, seen

NUMBERS = itertools.count(1)
EXAMPLES = 15

NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"c", b"a b", b"a.b", b"-", b"\n", b"\xff\xfe", b"n" * 255, b"...", b"\x1b[2J"]),
    st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name),
).filter(lambda name: name not in (b".", b".."))
SIZES = st.sampled_from([0, 1, 100, 4 * KIB, 5000, 512 * KIB, 512 * KIB + 1, 700 * KIB, 1300 * KIB])
CONTENTS = st.builds(lambda size, seed: random.Random(seed).randbytes(size), SIZES, st.integers(0, 3))
ATTRIBUTES = st.dictionaries(st.sampled_from(["user.a", "user.b"]), st.binary(max_size=20), max_size=2)
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o2750, 0o1777, 0o400, 0])
TIMES = st.integers(-(2**33) * 10**9, 2**33 * 10**9)
FILES = st.tuples(st.just("file"), CONTENTS, MODES, TIMES, ATTRIBUTES)
LINKS = st.tuples(st.just("link"), st.binary(min_size=1, max_size=50).filter(lambda target: b"\0" not in target))
OTHERS = st.one_of(st.tuples(st.just("fifo")), st.tuples(st.just("again")), LINKS)
TREES = st.recursive(
    st.one_of(FILES, OTHERS),
    lambda below: st.tuples(st.just("folder"), st.dictionaries(NAMES, below, max_size=5), MODES, TIMES, ATTRIBUTES),
    max_leaves=12,
)
ROOTS = st.dictionaries(NAMES, TREES, max_size=6)


class TreeWriter:
    """Creates entries on disk. The kind `again` is a hard link to the last file."""

    def __init__(self):
        self.files = []

    def create(self, parent, name, what):
        path = os.path.join(parent, name)
        kind = what[0]
        if kind == "file":
            with open(path, "wb") as file:
                file.write(what[1])
            self.files.append(path)
            self.set_attributes(path, *what[2:])
        elif kind == "folder":
            os.mkdir(path)
            for below, entry in what[1].items():
                self.create(path, below, entry)
            self.set_attributes(path, *what[2:])
        elif kind == "link":
            os.symlink(what[1], path)
        elif kind == "again" and self.files:
            os.link(self.files[-1], path)
        else:
            os.mkfifo(path)

    def set_attributes(self, path, mode, time_ns, attributes):
        for name, value in attributes.items():
            os.setxattr(path, name, value)
        if os.geteuid() == 0:
            os.chmod(path, mode)
        os.utime(path, ns=(time_ns, time_ns))


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, TREES),
        st.tuples(st.just("remove"), st.integers(0, 50)),
        st.tuples(st.just("rename"), st.integers(0, 50), NAMES),
        st.tuples(st.just("append"), st.integers(0, 50), st.binary(min_size=1, max_size=10)),
        st.tuples(st.just("mode"), st.integers(0, 50), MODES),
    ),
    max_size=5,
)


def change(root, changes):
    """Apply random changes to the entries of a folder."""
    for kind, which, *what in changes:
        if kind == "put":
            if os.path.lexists(os.path.join(root, which)):
                remove(os.path.join(root, which))
            TreeWriter().create(root, which, what[0])
            continue
        paths = sorted(os.path.join(place, name) for place, below, files in os.walk(root) for name in below + files)
        if not paths:
            continue
        path = paths[which % len(paths)]
        if kind == "remove":
            remove(path)
        elif kind == "rename" and not os.path.lexists(os.path.join(root, what[0])):
            if not os.path.join(root, what[0]).startswith(path + b"/"):
                os.rename(path, os.path.join(root, what[0]))
        elif kind == "append" and os.path.isfile(path) and not os.path.islink(path):
            with open(path, "ab") as file:
                file.write(what[0])
        elif kind == "mode" and not os.path.islink(path) and os.geteuid() == 0:
            os.chmod(path, what[0])


def check_history(call, tree, rounds, key=None, writer_key=None):
    """Back up a tree after each round of changes; verify and restore every recovery point."""
    folder = Path(tempfile.mkdtemp(prefix="cryo-tree-"))
    runs = Runs(call, f"history-{next(NUMBERS)}", key)
    writer = Runs(call, runs.resource, writer_key, folder / "state") if writer_key else runs
    try:
        root = os.fsencode(folder / "source")
        os.mkdir(root)
        tree_writer = TreeWriter()
        for name, what in tree.items():
            tree_writer.create(root, name, what)
        points = []
        for changes in [[], *rounds]:
            change(root, changes)
            report, outcome = writer.backup(root)
            assert report.issue_count == 0
            points.append((outcome.recovery_point_arn, seen(root)))
        writer.backup(root, now=in_an_hour)  # from here on all times are trusted, even if the test was slow
        _, outcome = writer.backup(root, now=in_an_hour)
        assert outcome.same == (writer_key is None)
        for number, (arn, expected) in enumerate(points):
            assert runs.restore(folder / str(number), arn).issue_count == 0
            assert seen(folder / str(number)) == expected
            with runs.opened(arn) as archive:
                report = Report()
                verify_archive(archive, report, data=True)
                assert report.issue_count == 0
        target = folder / "0"  # restore each point over the one before
        for arn, expected in points:
            assert runs.restore(target, arn, delete=True).issue_count == 0
            assert seen(target) == expected
    finally:
        shutil.rmtree(folder)


@settings(max_examples=EXAMPLES)
@given(tree=ROOTS, rounds=st.lists(CHANGES, max_size=2))
def test_every_recovery_point_restores_its_tree(store, tree, rounds):
    check_history(store, tree, rounds)


@pytest.mark.stress
@given(tree=ROOTS, rounds=st.lists(CHANGES, max_size=4))
def test_every_recovery_point_restores_its_tree_in_long_histories(store, tree, rounds):
    check_history(store, tree, rounds)


@settings(max_examples=4)
@given(tree=ROOTS, rounds=st.lists(CHANGES, max_size=1))
def test_every_recovery_point_restores_its_tree_over_a_server(client, tree, rounds):
    check_history(client, tree, rounds)


@settings(max_examples=10)
@given(tree=ROOTS, rounds=st.lists(CHANGES, max_size=2))
def test_every_sealed_recovery_point_restores_its_tree(store, tree, rounds):
    check_history(store, tree, rounds, AgentKey.generate())


@settings(max_examples=8)
@given(tree=ROOTS, rounds=st.lists(CHANGES, max_size=2))
def test_every_recovery_point_of_a_write_only_key_restores_its_tree(store, tree, rounds):
    key = AgentKey.generate()
    check_history(store, tree, rounds, key, PublicKey(key.public))
