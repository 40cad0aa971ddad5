"""Durable files: cases that the tests of the blob stores do not cover."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from cryostore.chunks.durable_files import create_file, make_directory, storage_error, sweep_staging, write_all
from cryostore.core.errors import BlobExistsError, BlobNotFoundError, StorageFullError, StorageUnavailableError


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOENT, BlobNotFoundError), (errno.ENOTDIR, BlobNotFoundError), (errno.EISDIR, BlobNotFoundError),
     (errno.EEXIST, BlobExistsError), (errno.ENOSPC, StorageFullError), (errno.EDQUOT, StorageFullError),
     (errno.EFBIG, StorageFullError), (errno.EIO, StorageUnavailableError), (errno.EACCES, StorageUnavailableError)],
)  # fmt: skip
def test_each_system_error_is_translated(number, kind):
    error = storage_error(OSError(number, "the system's words"), "blob a/b")
    assert type(error) is kind
    full = f"disk full on {os.uname().nodename}: blob a/b: no space left"
    assert error.message == (full if kind is StorageFullError else "blob a/b: the system's words")


def test_create_file_never_follows_a_dangling_link(tmp_path):
    """A symbolic link under the name of the file counts as an existing file."""
    (tmp_path / "file").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "file", b"x", staging=tmp_path)
    assert not (tmp_path / "nowhere").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sweeping_an_empty_or_changing_directory_succeeds(tmp_path, monkeypatch):
    sweep_staging(tmp_path)
    (tmp_path / "~a").write_bytes(b"")
    really_open = os.open

    def vanish(path, flags):
        path.unlink()
        return really_open(path, flags)

    monkeypatch.setattr(os, "open", vanish)
    sweep_staging(tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_swept_before_it_is_locked_is_created_again(tmp_path, monkeypatch):
    """Another process opens the store between the creation and the lock."""
    really_lock = fcntl.flock

    def lock_late(descriptor, how):
        monkeypatch.undo()
        sweep_staging(tmp_path)
        really_lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    create_file(tmp_path / "file", b"x", staging=tmp_path)
    assert (tmp_path / "file").read_bytes() == b"x"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_make_directory_flushes_existing_directories_too(tmp_path, monkeypatch):
    """Another process may have created the directory and not flushed it yet."""
    make_directory(tmp_path / "a")
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    make_directory(tmp_path / "a")
    assert flushed == [tmp_path]


def test_write_all_without_buffers_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwritev", None)
    assert write_all(-1, [b"", bytearray()], 7) == 7
