"""Mount calls of FUSE: folders that are refused before anything is mounted."""

from __future__ import annotations

import pytest

from cryostore.agent.mount import fuse_mount
from cryostore.agent.mount.fuse_mount import mount
from cryostore.core.errors import ConfigurationError


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot mount on .*No such file"):
        mount(str(tmp_path / "missing"), allow_other=False)


def test_a_folder_with_content_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="is not empty") as failure:
        mount(str(tmp_path), allow_other=False)
    assert "hide its content" in failure.value.hint


def test_a_machine_without_fuse_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fuse_mount, "DEVICE", str(tmp_path / "fuse"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="there is no"):
        mount(str(tmp_path / "folder"), allow_other=False)


def test_other_users_than_root_need_fusermount(tmp_path, monkeypatch):
    monkeypatch.setattr(fuse_mount.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(fuse_mount, "DEVICE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="there is no fusermount3") as failure:
        mount(str(tmp_path / "folder"), allow_other=False)
    assert "fuse3" in failure.value.hint
