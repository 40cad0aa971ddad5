"""`cryo init`: initialises a store once, resumes after an interruption, and replaces nothing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cryostore.catalog import open_catalog
from cryostore.catalog.rows import keys
from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.blobs.local import LocalBlobs
from cryostore.chunks.keyring.sources import FileKeyring
from cryostore.chunks.marker import newest_marker
from cryostore.chunks.records import Records
from cryostore.core.errors import ConfigurationError, CryostoreError, StorageUnavailableError
from cryostore.maintenance.key_rotation import RotationResult, forget_master_key, rotate_master_key
from cryostore.model.errors import ServiceUnavailableException
from cryostore.model.vaults import ListBackupVaults
from cryostore.service.opening import init as preparing
from cryostore.service.opening.data_directory import RootKey, write_credentials
from cryostore.service.opening.init import init
from cryostore.service.opening.open_shared import open_shared_service
from cryostore.service.opening.shared_store import SharedStoreAddress, without_secrets
from support.stores.in_process import opened
from support.stores.shared_store import SharedStore, fresh_place, opened_shared, prepared

COVERS = ("service/opening/shared_store.py", "service/opening/data_directory.py", "service/opening/open_shared.py")


@pytest.fixture
def place(tmp_path):
    """The address of an empty place."""
    with fresh_place(tmp_path) as place:
        yield place


def credentials(path):
    return dict(line.split(" = ") for line in path.read_text().splitlines() if " = " in line)


def test_a_store_is_initialised_once(place, tmp_path):
    """The first run creates keyring, root key and vault; the second one finds them."""
    made = []
    outcome = init(place, tmp_path / "credentials", region="eu-1", account_id="1" * 12, on_keyring_created=made.append)
    assert made == [tmp_path / "keyring.json"]
    assert (outcome.made_store, outcome.made_keyring, outcome.made_credentials) == (True, True, True)
    for name in ("keyring.json", "credentials"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    said = credentials(tmp_path / "credentials")
    assert (said["aws_access_key_id"], said["region"]) == (outcome.access_key_id, "eu-1")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file() and "sqlite" not in path.name}
    again = init(place, tmp_path / "credentials", on_keyring_created=made.append)
    assert (again.made_store, again.made_keyring, again.made_credentials) == (False, False, False)
    assert (again.store_id, again.region, again.account_id) == (outcome.store_id, "eu-1", "1" * 12)
    assert {path: path.read_bytes() for path in before} == before
    service = open_shared_service(place)
    try:
        assert service.access.secret(outcome.access_key_id) == said["aws_secret_access_key"]
        assert service.access.caller(outcome.access_key_id).root
        assert service.context.settings.region == "eu-1"
        assert service.context.arns.vault("x").startswith(f"arn:aws:backup:eu-1:{'1' * 12}:")
    finally:
        service.close()


def test_the_region_and_the_account_stay(place, tmp_path):
    init(place, tmp_path / "credentials")
    for more in ({"region": "eu-1"}, {"account_id": "1" * 12}):
        with pytest.raises(ConfigurationError, match="was made with"):
            init(place, None, **more)
    for more in ({"region": "Nowhere!"}, {"account_id": "12"}):
        with pytest.raises(ConfigurationError, match="must be"):
            init(place, None, **more)


def test_another_keyring_is_refused(place, tmp_path):
    """Another keyring is one that exists, or one that would have to be created."""
    init(place, tmp_path / "credentials")
    other = place._replace(keyring=str(tmp_path / "other.json"))
    with pytest.raises(ConfigurationError, match="missing"):
        init(other, None)
    assert not (tmp_path / "other.json").exists()
    with fresh_place(tmp_path / "elsewhere") as elsewhere:
        (tmp_path / "elsewhere").mkdir()
        init(elsewhere, tmp_path / "elsewhere" / "credentials")
    for attempt in (init, lambda place, _: open_shared_service(place)):
        with pytest.raises(ConfigurationError, match="does not open the store"):
            attempt(place._replace(keyring=elsewhere.keyring), None)


def test_a_catalog_and_blobs_of_different_stores_are_refused(tmp_path):
    """If either of them belongs to another store, or is empty, nothing is opened and nothing changes."""
    with prepared(tmp_path / "one") as one, prepared(tmp_path / "other") as other:
        empty = str(tmp_path / "empty")
        wrong = {
            one._replace(blobs=other.blobs): "belong to another store",
            one._replace(blobs=empty): "does not hold them",
            one._replace(catalog=str(tmp_path / "empty.sqlite")): "whose catalog is elsewhere",
        }
        for place, words in wrong.items():
            with pytest.raises(ConfigurationError, match=words):
                init(place, None)
        for place in wrong:
            with pytest.raises(ConfigurationError):
                open_shared_service(place)
        assert newest_marker(open_blobs(empty)) is None
        for place in (one, other):
            open_shared_service(place).close()


def test_a_data_directory_is_not_used_for_a_shared_store(tmp_path):
    """Neither its catalog nor its packs are used."""
    with opened(tmp_path / "data") as store:
        store.api().backup({"name": b"1"})
    (tmp_path / "new").mkdir()
    with fresh_place(tmp_path / "new") as place:
        catalog = place._replace(catalog=str(tmp_path / "data" / "catalog.sqlite"))
        for wrong in (catalog, place._replace(blobs=str(tmp_path / "data"))):
            with pytest.raises(ConfigurationError) as refused:
                init(wrong, tmp_path / "credentials")
            assert "cryo migrate" in refused.value.hint
        assert not (tmp_path / "new" / "keyring.json").exists()
        assert not (tmp_path / "credentials").exists()


def test_a_store_that_was_not_initialised_is_not_opened(place, tmp_path):
    """The check creates nothing."""
    for _ in range(2):
        with pytest.raises(ConfigurationError) as refused:
            open_shared_service(place)
        assert "is missing" in refused.value.message
    init(place, tmp_path / "credentials")
    (tmp_path / "catalog.sqlite").rename(tmp_path / "away")
    with pytest.raises(ConfigurationError) as refused:
        open_shared_service(place)
    assert "cryo init" in refused.value.hint
    assert not (tmp_path / "catalog.sqlite").exists()
    (tmp_path / "catalog.sqlite").touch()  # stands for a database of another program
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="holds no catalog"):
            open_shared_service(place)
    open_catalog(tmp_path / "catalog.sqlite").close()
    with pytest.raises(ConfigurationError, match="holds no store yet"):
        open_shared_service(place)


def test_upgrade_needs_a_store(place, tmp_path):
    with pytest.raises(ConfigurationError, match="no store to upgrade"):
        init(place, None, upgrade=True)
    init(place, tmp_path / "credentials")
    assert not init(place, None, upgrade=True).made_store


def test_a_foreign_file_is_not_replaced(place, tmp_path):
    """A foreign credentials file stops `cryo init` before it creates anything. Later it restores a lost one."""
    path = tmp_path / "credentials"
    path.write_text("[default]\naws_access_key_id = SOMEBODY\n")
    with pytest.raises(ConfigurationError, match="does not hold the root access key"):
        init(place, path)
    assert sorted(tmp_path.iterdir()) == sorted([path, tmp_path / "blobs", *tmp_path.glob("catalog*")])
    with pytest.raises(ConfigurationError, match="no directory"):
        init(place, tmp_path / "nowhere" / "credentials")
    init(place, tmp_path / "mine")
    said = (tmp_path / "mine").read_text()
    with pytest.raises(ConfigurationError, match="does not hold the root access key"):
        init(place, path)
    (tmp_path / "mine").unlink()
    assert init(place, tmp_path / "mine").made_credentials
    assert (tmp_path / "mine").read_text() == said


class DiedError(Exception):
    """Stands for the end of the process."""


STEPS = [
    (preparing, "fill_new_store"),
    (preparing, "put_marker"),
    (preparing, "replace_identity"),
    (preparing, "_write_records"),
    (preparing, "root_key"),
    (preparing, "_write_credentials"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("module", "step"), STEPS, ids=[step for _, step in STEPS])
def test_the_next_run_resumes_an_interrupted_one(place, tmp_path, monkeypatch, module, step, after):
    """It was interrupted before or after each step: the store opens only when complete, and is one store."""
    real = getattr(module, step)

    def die(*arguments, **more):
        if after:
            real(*arguments, **more)
        raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(module, step, die)
        with pytest.raises(DiedError):
            init(place, tmp_path / "credentials")
    keyring = (tmp_path / "keyring.json").read_bytes()
    init(place, tmp_path / "credentials")
    assert (tmp_path / "keyring.json").read_bytes() == keyring
    store = SharedStore(place)
    try:
        vaults = store.call(ListBackupVaults()).backup_vault_list
        assert [vault.backup_vault_name for vault in vaults] == ["Default"]
        api = store.api()
        assert api.restored(api.backup({"name": b"1"})) == {"name": b"1"}
    finally:
        store.service.close()
    assert init(place, tmp_path / "credentials").made_store is False


def test_a_partly_initialised_store_is_not_opened(place, tmp_path, monkeypatch):
    """The rows exist without the marker; or both exist, and the row is not bound yet."""
    for step in ("put_marker", "replace_identity"):
        with monkeypatch.context() as patch:
            patch.setattr(preparing, step, lambda *_: (_ for _ in ()).throw(DiedError))
            with pytest.raises(DiedError):
                init(place, tmp_path / "credentials")
        with pytest.raises(ConfigurationError, match="only partly prepared"):
            open_shared_service(place)


def test_a_store_that_was_started_with_other_blobs_gets_a_new_identity(place, tmp_path, monkeypatch):
    """The first blobs may have a marker by now: the catalog starts again, and never matches them."""
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "replace_identity", lambda *_: (_ for _ in ()).throw(DiedError))
        with pytest.raises(DiedError):
            init(place, tmp_path / "credentials")
    first = newest_marker(LocalBlobs(tmp_path / "blobs"))
    moved = place._replace(blobs=str(tmp_path / "other"))
    assert init(moved, tmp_path / "credentials").store_id != first.store_id
    open_shared_service(moved).close()
    with pytest.raises(ConfigurationError, match="another store"):
        open_shared_service(place)


def test_the_first_records_are_written(tmp_path):
    """The catalog can be rebuilt from the start."""
    with prepared(tmp_path) as place:
        names = list(open_blobs(place.blobs).list("records/"))
        assert [name.split("/")[1] for name in names] == ["store", "vault"]


def test_init_fails_without_the_first_records(place, tmp_path, monkeypatch):
    """A store that cannot be rebuilt does not count as initialised; the next run completes it."""
    with monkeypatch.context() as patch:
        patch.setattr(Records, "put_wrapped", lambda *_: (_ for _ in ()).throw(StorageUnavailableError("away")))
        with pytest.raises(StorageUnavailableError):
            init(place, tmp_path / "credentials")
    assert not (tmp_path / "credentials").exists()
    init(place, tmp_path / "credentials")
    assert len(list(open_blobs(place.blobs).list("records/"))) == 2


class ReplacingBlobs(LocalBlobs):
    """Blobs of a service that accepts a condition and ignores it."""

    def put(self, key, data):
        self.delete(key)
        super().put(key, data)


def test_blobs_that_can_be_overwritten_are_refused(place, tmp_path, monkeypatch):
    """A marker would protect nothing in such a service."""
    monkeypatch.setattr(SharedStoreAddress, "open_blobs", lambda self: ReplacingBlobs(Path(self.blobs)))
    with pytest.raises(ConfigurationError, match="replaces a blob"):
        init(place, tmp_path / "credentials")
    with pytest.raises(ConfigurationError, match="only partly prepared"):
        open_shared_service(place)


def test_a_superseded_node_no_longer_answers(tmp_path):
    """A node finds out with `check_still_current`; the store cannot be opened again."""
    with opened_shared(tmp_path) as store:
        api = store.api()
        api.backup({"name": b"1"})
        store.service.check_still_current()
        blobs = LocalBlobs(tmp_path / "blobs")
        marker = newest_marker(blobs)
        following = type(marker)(marker.store_id, 2, "token", marker.region, marker.account_id)
        assert preparing.put_marker(blobs, following)
        assert preparing.put_marker(blobs, following)
        assert not preparing.put_marker(blobs, type(marker)(marker.store_id, 2, "other", "r", "1"))
        with pytest.raises(ConfigurationError, match="another catalog has taken over"):
            store.service.check_still_current()
        with pytest.raises(ServiceUnavailableException, match="out of date"):
            api.start_job()
        with pytest.raises(ConfigurationError, match="out of date"):
            store.open()


def test_a_key_rotation_rewraps_the_identity(tmp_path):
    """After the rotation no secret of the store needs the old key."""
    with opened_shared(tmp_path) as store:
        (old,) = FileKeyring(tmp_path / "keyring.json").document().keys
        for _ in rotate_master_key(store.service.context, outcome := RotationResult()):
            pass
        assert outcome.is_finished
        forget_master_key(store.service.context, old)
        store.reopen()
        assert store.api().backup({"name": b"1"})


def test_urls_are_shown_without_secrets():
    assert without_secrets("postgresql://u:pw@h:5/db?password=pw&sslmode=require") == "postgresql://u@h:5/db"
    assert without_secrets("postgresql://u:ge?heim@h:5/db?password=pw") == "postgresql://u@h:5/db"
    assert without_secrets("postgresql://u:1/geheim@h/db") == "postgresql://u@h/db", "libpq takes all of it for names"
    assert without_secrets("postgresql://h/db?options=a@b") == "postgresql://h/db"
    assert without_secrets("s3://b?token=geheim@x") == "s3://b"
    assert without_secrets("s3://b/p?endpoint=http://h:1&region=x") == "s3://b/p?endpoint=http://h:1"
    assert without_secrets("/a/b") == "/a/b"


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(CryostoreError):
        write_credentials(tmp_path / "folder", RootKey("AKIA", "secret"), "local-1")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_secrets_can_be_removed(tmp_path):
    database = open_catalog(tmp_path / "catalog.sqlite")
    database.write(lambda transaction: keys.insert_secret(transaction, "a", b"1"))
    for _ in range(2):
        database.write(lambda transaction: keys.delete_secret(transaction, "a"))
    assert database.read(lambda transaction: keys.secret(transaction, "a")) is None
    database.close()
