"""Removing trees from a target."""

from __future__ import annotations

import os
import resource

from cryostore.agent.removal import remove_tree
from support.agent import seen, write

LEVELS = 3000


def test_a_tree_deeper_than_any_stack_or_limit_of_descriptors_goes(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    parent = os.dup(fd)
    os.mkdir("top", dir_fd=fd)
    for _ in range(LEVELS):
        below = os.open("top", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        os.mkdir("top", dir_fd=fd)
        os.mkdir("beside", dir_fd=fd)
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        assert remove_tree(parent, b"top", dry_run=True) == 2 * LEVELS + 1
        assert remove_tree(parent, b"top") == 2 * LEVELS + 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(parent)
    assert os.listdir(tmp_path) == []


def test_nothing_behind_a_symlink_goes(tmp_path):
    write(tmp_path / "outside", {"kept": b""})
    before = seen(tmp_path / "outside")
    write(tmp_path / "tree", {"a": {"way out": lambda path: os.symlink(tmp_path / "outside", path), "b": b""}})
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        assert remove_tree(parent, b"tree", dry_run=True) == 4
        assert remove_tree(parent, b"tree") == 4
    finally:
        os.close(parent)
    assert os.listdir(tmp_path) == ["outside"]
    assert seen(tmp_path / "outside") == before
