"""The keyring of a data directory: which one opens a store, the errors of wrong ones, and missing keys at run time."""

from __future__ import annotations

import shlex
import shutil

import pytest

from cryostore.catalog.rows import records
from cryostore.chunks.keyring import create_keyring
from cryostore.chunks.keyring.sources import FileKeyring
from cryostore.core.errors import ConfigurationError, KeyMissingError, KeyUnavailableError
from cryostore.core.ids import random_id
from cryostore.maintenance.key_rotation import RotationResult, rotate_master_key
from cryostore.model.chunks import GetChunk
from cryostore.model.errors import ServiceUnavailableException
from cryostore.service.opening.data_directory import existing_keyring
from cryostore.service.opening.open import open_service
from cryostore.service.recording import write_due_records
from support.stores.in_process import opened
from support.stores.keyrings import BOTH, printing, program, write_keyring

DATA = b"what is in the backup"
OBJECT = "name-of-an-object"


@pytest.fixture
def inside(store):
    """The keyring file in the data directory."""
    return store.data_dir / "keyring.json"


@pytest.fixture
def outside(inside, tmp_path, store):
    """The keyring file, moved out of the data directory of a closed store."""
    store.api().backup({OBJECT: DATA})
    store.service.close()
    yield inside.rename(tmp_path / "elsewhere.json")
    store.options.pop("keyring", None)
    inside.unlink(missing_ok=True)
    shutil.copy(tmp_path / "elsewhere.json", inside)
    store.service = store.open()


def refused(store, keyring=None):
    """The error of opening the store, which has a hint and no secrets."""
    with pytest.raises(ConfigurationError) as caught:
        open_service(store.data_dir, keyring=keyring).close()
    assert caught.value.hint
    assert OBJECT not in caught.value.message + caught.value.hint
    return caught.value


# --- place of the keyring ---------------------------------------------------------------------------------------------


def test_a_keyring_can_be_moved_out_of_the_directory_and_named(store, outside):
    service = open_service(store.data_dir, keyring=str(outside))
    service.close()
    assert not (store.data_dir / "keyring.json").exists()


def test_a_new_store_creates_its_keyring_at_the_named_path(tmp_path):
    made, keyring = [], tmp_path / "keys" / "keyring.json"
    with pytest.raises(ConfigurationError, match="no directory") as caught:
        open_service(tmp_path / "data", keyring=str(keyring))
    assert caught.value.hint == f"Run: mkdir -m 700 {keyring.parent}"
    keyring.parent.mkdir()
    open_service(tmp_path / "data", keyring=f"file:{keyring}", on_keyring_created=made.append).close()
    open_service(tmp_path / "data", keyring=str(keyring), on_keyring_created=made.append).close()
    assert made == [keyring]
    assert not (tmp_path / "data" / "keyring.json").exists()


@pytest.mark.parametrize("scheme", ["env", "command"])
def test_a_store_whose_keyring_is_never_on_disk(tmp_path, monkeypatch, scheme):
    write_keyring(tmp_path / "document", BOTH)
    command = f"command:{shlex.join(printing(tmp_path / 'document'))}"
    place = "env:CRYOSTORE_TEST_KEYS" if scheme == "env" else command
    for _ in range(2):
        monkeypatch.setenv("CRYOSTORE_TEST_KEYS", BOTH.encode().decode())
        with opened(tmp_path / "data", keyring=place) as store:
            api = store.api()
            assert api.restored(api.backup({OBJECT: DATA})) == {OBJECT: DATA}
    assert [path.name for path in (tmp_path / "data").rglob("keyring*")] == []


def test_a_second_keyring_is_refused(store, outside, inside):
    shutil.copy(outside, inside)
    error = refused(store, str(outside))
    assert str(inside) in error.message
    assert "move this one away" in error.hint


def test_the_keyring_in_the_directory_may_be_named(store, inside, tmp_path):
    (tmp_path / "link").symlink_to(inside)
    for place in (str(inside), f"file:{inside}", str(tmp_path / "link")):
        open_service(store.data_dir, keyring=place).close()


def test_no_keyring_is_created_for_a_directory_with_data(store, outside, tmp_path):
    for place in (None, str(tmp_path / "new.json")):
        assert "missing" in refused(store, place).message
    shutil.move(store.data_dir / "catalog.sqlite", tmp_path / "catalog")
    refused(store, str(tmp_path / "new.json"))
    with pytest.raises(ConfigurationError, match="missing"):
        existing_keyring(store.data_dir)
    assert not (tmp_path / "new.json").exists()
    shutil.move(tmp_path / "catalog", store.data_dir / "catalog.sqlite")


# --- wrong keyrings --------------------------------------------------------------------------------------------------


def test_a_foreign_keyring_opens_nothing(store, outside, tmp_path):
    create_keyring(tmp_path / "foreign", random_id)
    assert "does not open the store" in refused(store, str(tmp_path / "foreign")).message


def test_a_keyring_with_the_right_id_and_the_wrong_secret_opens_nothing(store, outside, tmp_path):
    document = FileKeyring(outside).document()
    text = outside.read_text().replace(document.encode().decode().split('": "')[-1][:8], "AAAAAAAA")
    write_keyring(tmp_path / "wrong", text)
    assert "does not open this" in refused(store, str(tmp_path / "wrong")).message


@pytest.mark.parametrize("trouble", ["truncated", "empty", "open to others", "a directory", "gone"])
def test_an_unusable_keyring_file_is_refused(store, outside, tmp_path, trouble):
    path = tmp_path / "trouble"
    if trouble == "a directory":
        path.mkdir()
    elif trouble != "gone":
        text = {"truncated": outside.read_text()[:-20], "empty": ""}.get(trouble, outside.read_text())
        write_keyring(path, text, 0o644 if trouble == "open to others" else 0o600)
    assert str(path) in refused(store, str(path)).message


def test_commands_and_variables_without_a_keyring_are_refused(store, outside, tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOSTORE_TEST_KEYS", "garbage")
    failing = shlex.join(program(tmp_path / "program.py", f"import sys; print({OBJECT!r}); sys.exit(4)"))
    for place in (
        "env:CRYOSTORE_TEST_KEYS",
        "env:CRYOSTORE_TEST_NONE",
        f"command:{failing}",
        "command:/no/such/program",
    ):
        refused(store, place)


def test_a_lost_credentials_file_is_not_written_without_the_key(store, outside, tmp_path):
    """The access key of the root caller is wrapped, too."""
    (store.data_dir / "credentials").unlink()
    create_keyring(tmp_path / "foreign", random_id)
    refused(store, str(tmp_path / "foreign"))
    assert not (store.data_dir / "credentials").exists()


# --- missing keys while the store is open ----------------------------------------------------------------------------


def lock_out(store):
    """Rotate with a copy of the keyring, so that the service's keyring lacks the key. Returns the copy."""
    inside = store.data_dir / "keyring.json"
    kept = inside.read_bytes()
    for _ in rotate_master_key(store.service.context, RotationResult()):
        pass
    copy = inside.read_bytes()
    inside.unlink()
    write_keyring(inside, kept.decode())
    return copy


def test_a_vault_fails_without_its_key_while_others_work_and_recovers_with_it(store, inside):
    known, other = store.api(), store.api()
    other.new_vault()
    arns = known.backup({OBJECT: DATA}), other.backup({OBJECT: b"of the other"})
    store.reopen()
    known.restored(arns[0])  # its key is in memory
    copy = lock_out(store)
    job = other.restore(arns[1])
    chunk = other.chunks(job, OBJECT)[0]
    operation = GetChunk(storage_job_id=job, chunk_token=chunk.chunk_token)
    refusal = other.refuses(ServiceUnavailableException, operation)
    assert isinstance(refusal.__cause__, KeyMissingError)
    assert f"lacks master key {refusal.__cause__.key_id}" in refusal.message
    assert str(inside) in refusal.__cause__.hint
    new = other.running_job()
    with pytest.raises(ServiceUnavailableException):
        other.put(new, "more", b"more of the other")
    assert known.restored(arns[0]) == {OBJECT: DATA}
    assert known.restored(known.backup({"more": b"more"}))["more"] == b"more"
    inside.write_bytes(copy)
    assert other.restored(arns[1]) == {OBJECT: b"of the other"}
    other.put(new, "more", b"more of the other")
    assert other.restored(other.commit(new)) == {OBJECT: b"of the other", "more": b"more of the other"}


def test_a_store_opens_although_the_key_of_one_vault_is_missing(store, inside):
    """Other vaults can be read; the records of this one are written when the key is back."""
    api = store.api()
    arn = api.backup({OBJECT: DATA})
    context = store.service.context
    row = context.database.read(lambda t: t.row("SELECT wrapped FROM vault_key"))
    foreign = BOTH.active.wrap(b"x" * 32, b"")
    context.database.write(lambda t: t.run("UPDATE vault_key SET wrapped = :wrapped", wrapped=foreign))
    context.database.write(lambda t: t.run("UPDATE record SET changes = changes + 1 WHERE noun = 'commit'"))
    store.reopen()
    assert api.point(arn).status == "COMPLETED"
    job = api.restore(arn)
    api.refuses(
        ServiceUnavailableException,
        GetChunk(storage_job_id=job, chunk_token=api.chunks(job, OBJECT)[0].chunk_token),
    )
    store.service.context.database.write(lambda t: t.run("UPDATE vault_key SET wrapped = :wrapped", wrapped=row[0]))
    assert api.read(job) == {OBJECT: DATA}
    assert write_due_records(store.service.context)
    assert store.service.context.database.read(lambda t: records.due(t, 9)) == []


def test_known_callers_are_served_while_the_master_key_is_missing(store, inside):
    """The secret of a known caller is not unwrapped again."""
    lines = (store.data_dir / "credentials").read_text().splitlines()
    access_key_id = next(line.split(" = ")[1] for line in lines if "access_key_id" in line)
    secret = store.service.access.secret(access_key_id)
    copy = lock_out(store)
    store.clock.advance(60_000)
    assert store.service.access.secret(access_key_id) == secret
    store.service.access.forget()
    with pytest.raises(KeyUnavailableError):
        store.service.access.secret(access_key_id)
    with pytest.raises(ConfigurationError, match="does not open"):
        store.open()
    inside.write_bytes(copy)
    assert store.service.access.secret(access_key_id) == secret
