"""The state folder of a user, and the file systems of stores in it."""

from __future__ import annotations

import pytest

from cryostore.cli import user_state
from cryostore.cli.user_state import (
    file_name_of,
    remember_file_system,
    require_same_file_system,
    state_folder,
)
from cryostore.core.errors import ConfigurationError


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """The state folder, which does not exist yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "cryostore"


def test_where_the_folder_is(state, monkeypatch, tmp_path):
    assert state_folder() == state
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local/state/cryostore"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state_folder() is None


def test_a_user_without_a_home_has_none(monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 987_654)
    assert state_folder() is None
    remember_file_system(user_state.Path("data"))  # there is no folder to write to, which is no error


def test_names_of_stores_become_file_names():
    names = [file_name_of(name) for name in ("/a", "/b", "https://host", "/\udcff")]
    assert len(set(names)) == 4
    assert all(len(name) == 16 and name.isalnum() for name in names)


def test_a_store_is_not_made_again_on_another_file_system(state, tmp_path, monkeypatch):
    data = tmp_path / "data"
    require_same_file_system(data)  # nothing is recorded
    data.mkdir()
    remember_file_system(data)
    require_same_file_system(data)
    data.rmdir()
    require_same_file_system(data)  # deleted in place: its folder is on the same file system
    monkeypatch.setattr(user_state, "_device", lambda _: "another")
    with pytest.raises(ConfigurationError, match="on another file system") as refused:
        require_same_file_system(data)
    (record,) = (state / "stores").iterdir()
    assert str(record) in refused.value.hint
    record.unlink()
    require_same_file_system(data)


def test_a_state_folder_that_cannot_be_written_is_no_error(tmp_path, state):
    state.parent.write_text("a file is in the way")
    remember_file_system(tmp_path)
    require_same_file_system(tmp_path)
