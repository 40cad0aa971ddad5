"""A store in a directory, a command line that uses it, and a folder to back up."""

from __future__ import annotations

from functools import partial

import pytest

from support.archives.agent import write
from support.processes.command_line import CryoProcess, carry_out


@pytest.fixture
def cryo(tmp_path, monkeypatch, capsys):
    """Carries out a command line in this process; returns its exit code, stdout and stderr."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("CRYO_DATA_DIR", str(tmp_path / "data"))
    for name in ("CRYO_KEY_FILE", "CRYO_KEY_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    return partial(carry_out, capsys)


@pytest.fixture
def cryo_process(tmp_path):
    """Carries out a command line as a process; returns its stdout and stderr."""
    return CryoProcess(tmp_path)


@pytest.fixture
def source(tmp_path):
    """A folder to back up."""
    write(tmp_path / "source", {"file": b"file", "folder": {"other": b"other"}, b"\x1b[2J\n": b"control"})
    return tmp_path / "source"


@pytest.fixture
def folder(tmp_path):
    """A folder with a tree to back up: one file, whose name must not be visible in an encrypted backup."""
    write(tmp_path / "source", {"telling-name": b"content"})
    return tmp_path
