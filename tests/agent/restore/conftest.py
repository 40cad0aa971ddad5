"""A small tree that has been backed up, for tests that restore it."""

from __future__ import annotations

import os

import pytest

from support.archives.agent import write


@pytest.fixture
def backed_up(local_runs, tmp_path):
    """The folder of a small tree that has been backed up."""
    write(
        tmp_path / "source",
        {"a": b"archived a", "folder": {"b": b"archived b"}, "link": lambda path: os.symlink("a", path)},
    )
    for name in ("a", "folder/b"):
        os.utime(tmp_path / "source" / name, ns=(1, 1_000_000_000_000_000_000))
    local_runs.backup(tmp_path / "source")
    return tmp_path / "source"
