"""Write-only base: a machine with only a public key makes incremental backups that it cannot read."""

from __future__ import annotations

import os
import random
import stat

import pytest

from cryostore.agent.backup.write_only_base import (
    LISTING_NUMBER,
    StoredChunks,
    WriteOnlyState,
    key_id_in,
    load_state,
    save_state,
    state_path,
)
from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.cipher import derive
from cryostore.agent.encryption.key_objects import is_key_name
from cryostore.agent.encryption.sealed_object import ChunkKind, open_chunk
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.header import ContentObject
from cryostore.client import pages
from cryostore.core.errors import KeyUnavailableError, StorageUnavailableError
from cryostore.core.limits import KIB, MIB
from cryostore.model.chunks import GetChunk
from cryostore.model.objects import GetObjectMetadata
from cryostore.model.recovery_points import DeleteRecoveryPoint
from support.archives.agent import Runs, seen, write

OLD_KEY, NEW_KEY = b"o" * 16, b"n" * 16


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


@pytest.fixture
def key():
    return AgentKey.generate()


@pytest.fixture
def writer(local_runs, key, tmp_path):
    """Runs of a machine that has only the public part of the key."""
    return Runs(local_runs.call, local_runs.resource, PublicKey(key.public), tmp_path / "state")


@pytest.fixture
def reader(local_runs, key):
    """Runs of the holder of the whole key."""
    return Runs(local_runs.call, local_runs.resource, key)


def tree(root):
    write(
        root,
        {
            "small": noise(1000, "small"),
            "large": noise(12 * MIB, "large"),
            "folder": {f"{n}": noise(3000, n) for n in range(100)},
            "link": lambda path: os.symlink("target-of-the-link", path),
            "sparse": b"",
        },
    )
    os.truncate(root / "sparse", 8 * MIB)
    with (root / "sparse").open("r+b") as file:
        file.seek(3 * MIB)
        file.write(noise(MIB, "sparse"))
    os.setxattr(root / "small", "user.note", b"attribute")


def test_a_write_only_machine_cannot_read_its_backups_but_the_whole_key_can(writer, reader, tmp_path):
    tree(tmp_path / "source")
    writer.backup(tmp_path / "source")
    with pytest.raises(KeyUnavailableError, match="public part"):
        writer.restore(tmp_path / "target")
    reader.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_an_unchanged_tree_is_not_read_again(writer, reader, tmp_path):
    tree(tmp_path / "source")
    writer.backup(tmp_path / "source")
    opened = []
    report, _ = writer.backup(tmp_path / "source", before_read=opened.append)
    assert opened == []
    assert report.unchanged == report.files
    assert report.sent_bytes < 64 * KIB
    reader.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_changes_renames_and_copies_send_only_new_data(writer, reader, tmp_path):
    tree(tmp_path / "source")
    writer.backup(tmp_path / "source")
    os.rename(tmp_path / "source" / "folder", tmp_path / "source" / "renamed")
    write(tmp_path / "source", {"copy of large": noise(12 * MIB, "large"), "new": noise(2000, "new")})
    with (tmp_path / "source" / "large").open("r+b") as file:
        file.seek(6 * MIB)
        file.write(b"changed")
    report, _ = writer.backup(tmp_path / "source")
    assert report.sent_bytes < 5 * MIB
    reader.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_keys_of_runs_without_remaining_data_are_dropped(writer, reader, tmp_path):
    for number in range(4):
        write(tmp_path / "source", {"file": noise(MIB, number)})
        writer.backup(tmp_path / "source")
    with reader.opened() as archive:
        assert sum(map(is_key_name, archive.object_names)) <= 2
    for number in range(3):
        write(tmp_path / "source", {f"file {number}": noise(MIB, 100 + number)})
        writer.backup(tmp_path / "source")
    with reader.opened() as archive:
        assert sum(map(is_key_name, archive.object_names)) >= 4
    reader.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def delete_files(folder):
    for path in folder.iterdir():
        path.unlink()


def truncate_files(folder):
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("lose", [delete_files, truncate_files])
def test_a_run_without_its_state_sends_everything(writer, reader, tmp_path, lose):
    tree(tmp_path / "source")
    writer.backup(tmp_path / "source")
    lose(tmp_path / "state")
    report, _ = writer.backup(tmp_path / "source")
    assert report.sent_bytes > 12 * MIB
    reader.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_state_of_another_point_is_used_only_for_chunks(writer, reader, tmp_path):
    tree(tmp_path / "source")
    writer.backup(tmp_path / "source")
    before = {path: path.read_bytes() for path in (tmp_path / "state").iterdir()}
    write(tmp_path / "source", {"new": noise(2000, "new")})
    writer.backup(tmp_path / "source")
    for path, data in before.items():
        path.write_bytes(data)
    opened = []
    report, _ = writer.backup(tmp_path / "source", before_read=opened.append)
    assert b"large" in opened
    assert report.sent_bytes < 2 * MIB
    reader.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def stored(call, job_id):
    """All chunks and heads of an archive in the store, each with the name of its object."""
    for item in pages.objects(call, job_id):
        blob = call.call(GetObjectMetadata(storage_job_id=job_id, object_token=item.object_token)).metadata_blob
        if blob is not None:
            yield ChunkKind.HEAD, item.name.encode(), bytes(blob.data)
        for chunk in pages.chunks(call, job_id, item.object_token):
            data = call.call(GetChunk(storage_job_id=job_id, chunk_token=chunk.chunk_token)).data
            yield None, item.name.encode(), bytes(data.data)


def test_nothing_that_the_machine_has_on_disk_decrypts_the_archive(writer, reader, tmp_path):
    """Try all sequences of 32 bytes in its files as the secret of the archive key."""
    tree(tmp_path / "source")
    writer.backup(tmp_path / "source")
    with reader.opened() as archive:
        things = list(stored(reader.call, archive.job_id))
        secret = archive.sealing.active.secret
        chunks = archive.listing_chunks
        identities = [bytes.fromhex(chunk.checksum) for chunk in chunks]
        key_id = archive.sealing.active.key_id
    heads = [(place, data) for kind, place, data in things if kind == ChunkKind.HEAD]
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir()) + writer.key.public
    assert heads
    assert identities
    assert secret not in kept
    candidates = {kept[at : at + 32] for at in range(len(kept) - 31)}
    state = load_state(str(next((tmp_path / "state").iterdir())))
    candidates.add(derive(state.identity, b"cryostore agent seal 1"))
    for candidate in candidates:
        key = ArchiveKey(key_id, candidate, state.identity)
        place, data = heads[0]
        with pytest.raises((ArchiveDamagedError, KeyUnavailableError)):
            open_chunk({key_id: key}, ChunkKind.HEAD, place, data)
    # The right key opens it in the same way, so this test can fail.
    assert open_chunk({key_id: ArchiveKey(key_id, secret, state.identity)}, ChunkKind.HEAD, *heads[0])


def test_the_state_holds_no_name_and_no_content(writer, tmp_path):
    tree(tmp_path / "source")
    writer.backup(tmp_path / "source")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    for word in (b"large", b"folder", b"target-of-the-link", b"attribute", noise(1000, "small")[:16]):
        assert word not in kept
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "state").iterdir())


def test_chunks_whose_key_is_deleted_are_not_reused(writer, reader, tmp_path):
    """All recovery points are deleted, and with them the keys of chunks that the store may still have."""
    tree(tmp_path / "source")
    writer.backup(tmp_path / "source")
    call = DeleteRecoveryPoint(backup_vault_name="Default", recovery_point_arn=writer.latest())
    writer.call.call(call)
    report, _ = writer.backup(tmp_path / "source")
    assert report.sent_bytes > 12 * MIB
    reader.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_state_that_cannot_be_written_is_only_an_issue(writer, reader, tmp_path):
    tree(tmp_path / "source")
    (tmp_path / "state").write_bytes(b"no folder")
    report, outcome = writer.backup(tmp_path / "source")
    assert outcome.recovery_point_arn == reader.latest()
    assert ["cannot write the state" in issue.reason for issue in report.issues] == [True]


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
    assert left.find(digest(1)) is None, "its object was dropped"
    assert left.find(digest(LISTING_NUMBER)) is None, "the listing of the last run was dropped"


def test_the_key_id_is_in_the_name_of_a_key_object():
    assert key_id_in("key-" + OLD_KEY.hex() + "-recipient") == OLD_KEY
    assert key_id_in("no key") == b""
