"""Local state of a write-only machine: the file, and the chunks in it."""

from __future__ import annotations

import os
import stat

import pytest

from cryostore.agent.backup.write_only_state import (
    LISTING_NUMBER,
    StoredChunks,
    WriteOnlyState,
    key_id_in,
    load_state,
    save_state,
    state_path,
)
from cryostore.agent.header import ContentObject
from cryostore.core.errors import StorageUnavailableError

OLD_KEY, NEW_KEY = b"o" * 16, b"n" * 16


def digest(number):
    return bytes([number]) * 32


def test_a_state_is_read_as_it_was_saved_and_only_its_owner_can_read_it(tmp_path):
    path = state_path(str(tmp_path / "folder"), "Default", "tree")
    state = WriteOnlyState.fresh()
    state.point, state.objects, state.holes = "arn", [ContentObject(1, 5, 3)], {b"path": b"hole"}
    save_state(path, state)
    save_state(path, state)
    assert load_state(path) == state
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path / "folder") == [os.path.basename(path)]


@pytest.mark.parametrize("data", [None, b"", b"damaged", b"\x80"])
def test_an_unusable_file_gives_a_fresh_state(tmp_path, data):
    path = tmp_path / "state"
    if data is not None:
        path.write_bytes(data)
    found = load_state(str(path))
    assert (found.point, found.objects, found.chunks) == ("", [], b"")
    assert found.identity != load_state(str(path)).identity


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageUnavailableError):
        save_state(str(tmp_path / "file" / "state"), WriteOnlyState.fresh())


def written():
    """A state after a run that stored a chunk of the listing and one chunk in each of two objects."""
    state = WriteOnlyState.fresh()
    chunks = StoredChunks(state, set())
    for number in (LISTING_NUMBER, 1, 2):
        chunks.set_table_key(number, OLD_KEY)
        chunks.add(number, digest(number), digest(10 + number), 100 + number, OLD_KEY)
    chunks.prune({1, 2})
    return state


def test_chunks_are_found_only_if_their_key_is_stored_with_the_base():
    state = written()
    assert StoredChunks(state, {OLD_KEY}).find(digest(1)) == (digest(11), 101, OLD_KEY)
    assert StoredChunks(state, {OLD_KEY}).find(digest(9)) is None
    assert StoredChunks(state, {NEW_KEY}).find(digest(1)) is None


def test_pruning_keeps_the_objects_and_the_listing_of_this_run():
    state = written()
    chunks = StoredChunks(state, {OLD_KEY})
    chunks.set_table_key(LISTING_NUMBER, NEW_KEY)
    chunks.add(LISTING_NUMBER, digest(5), digest(15), 105, NEW_KEY)
    assert chunks.used_keys({2}) == {OLD_KEY, NEW_KEY}
    assert chunks.used_keys(set()) == {NEW_KEY}
    chunks.prune({2})
    left = StoredChunks(state, {OLD_KEY, NEW_KEY})
    assert left.find(digest(2)) == (digest(12), 102, OLD_KEY)
    assert left.find(digest(5)) == (digest(15), 105, NEW_KEY)
    assert left.find(digest(1)) is None, "its object is gone"
    assert left.find(digest(LISTING_NUMBER)) is None, "the listing of the run before is gone"


def test_the_key_id_is_in_the_name_of_a_key_object():
    assert key_id_in("key-" + OLD_KEY.hex() + "-recipient") == OLD_KEY
    assert key_id_in("no key") == b""
