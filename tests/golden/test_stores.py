"""Data directories of earlier versions: each opens, has the same content as then, and takes new backups.

`support.stores.golden_store` made each directory under `stores/` with the code of its schema version.
They are never created again.
"""

from __future__ import annotations

import base64
import json
from importlib import resources

import pytest

from cryostore.core.ids import counting_ids
from cryostore.core.time import FrozenClock
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.rebuild.run import RebuildResult
from cryostore.maintenance.rebuild.stores import rebuild_directory
from cryostore.model.chunks import GetChunk, ListChunks
from cryostore.model.jobs import CommitBackupJob
from cryostore.model.objects import GetObjectMetadata
from cryostore.service.opening.data_directory import existing_keyring
from support.requests.api import base64_of, hex_of
from support.stores.collecting import noise
from support.stores.golden_store import STORES
from support.stores.in_process import Store
from support.stores.integrity import problems
from support.stores.store_copy import copied
from support.stores.store_picture import differences, picture, view

GOLDEN = sorted(STORES.glob("schema-*"))
FIRST_NEW_ID = 1_000_000
CHAIN = "arn:aws:cryo:local-1:000000000000:fileset:golden:chain"


class Golden:
    """A copy of a golden directory, opened by the current code with the clock of its last change."""

    def __init__(self, golden, folder, *, without=(), before=lambda _data_dir: None):
        self.manifest = json.loads((golden / "manifest.json").read_text(encoding="utf-8"))
        shown = self.manifest["picture"]
        for name, vault in shown["vaults"].items():  # current code counts all points that it lists
            listed = [point["listed"] for point in shown["points"].values()]
            vault["NumberOfRecoveryPoints"] = sum(point["BackupVaultName"] == name for point in listed)
        data_dir = copied(golden / "data", folder / "data", without=without)
        before(data_dir)
        clock = FrozenClock(self.manifest["now_ms"])
        self.store = Store(data_dir, clock=clock, new_id=counting_ids(FIRST_NEW_ID))
        self.api = self.store.api()

    def forget(self, *points):
        """Record that these points are deleted, and that uncommitted ones may be."""
        shown = self.manifest["picture"]
        for arn in [arn for arn, said in shown["points"].items() if said["listed"]["Status"] != "COMPLETED"]:
            shown["point_tags"].pop(arn.rpartition(":")[2], None)
            del shown["points"][arn]
        for arn in points:
            del shown["points"][arn]

    def differences(self, *parts):
        """Return the differences from the recorded picture, in these parts of it or in all."""
        expected = self.manifest["picture"]
        found = picture(self.api)
        return differences({part: expected[part] for part in parts or expected}, found)


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def golden(request, tmp_path):
    opened = Golden(request.param, tmp_path)
    yield opened
    opened.store.service.close()


def test_everything_is_unchanged(golden):
    """Every vault, tag, job, point, object, list, checksum, metadata and byte, also after maintenance."""
    assert golden.differences() == []
    assert problems(golden.store.data_dir) == []
    golden.store.maintain()
    golden.store.reopen()
    assert golden.differences() == []


def test_open_jobs_continue(golden):
    """Issued tokens still work, an open upload is completed, and a repeated request starts nothing new."""
    api, restore = golden.api, golden.manifest["running_restore"]
    for held in golden.manifest["tokens"]:
        api.call(GetObjectMetadata(storage_job_id=restore, object_token=held["object_token"]))
        listed = api.call(ListChunks(storage_job_id=restore, object_token=held["object_token"])).chunk_list
        assert [chunk.checksum for chunk in listed] == [checksum for _, checksum in held["chunk_tokens"]]
        for token, checksum in held["chunk_tokens"]:
            got = api.call(GetChunk(storage_job_id=restore, chunk_token=token))
            assert got.checksum == checksum
            assert checksum in (hex_of(got.data.data), base64_of(got.data.data))
    for upload in golden.manifest["open_uploads"]:
        parts = {index: base64.b64decode(text) for index, text in upload["chunks"]}
        api.complete(upload["job"], upload["upload"], list(parts.values()))
        assert api.read_chunks(upload["job"], api.found(upload["job"], upload["name"]).object_token) == parts
    again = api.start_job(resource=golden.manifest["waiting_resource"], idempotency_token="waiting")
    assert again == golden.manifest["waiting_job"]


def test_new_backups_and_garbage_collection_on_an_old_store(golden):
    """An incremental backup on an old base, the deletion of an old point and collections keep the other points."""
    api = golden.api
    (upload,) = golden.manifest["open_uploads"]
    before = view(api, upload["job"])
    arn = api.call(CommitBackupJob(backup_job_id=upload["job"], discard_open_uploads=True)).recovery_point_arn
    api.resource = CHAIN
    on_top = api.backup({"new": noise(9000), "small": noise(9001), "compressible": None})
    doomed = golden.manifest["points"]["branch 1"]
    api.delete_point(doomed)
    golden.store.maintain()
    removed = sum(collect_all(golden.store.service.context, quarantine_ms=0).removed for _ in range(3))
    assert removed
    golden.store.reopen()
    golden.forget(doomed)
    assert golden.differences("points") == []
    found = api.restored(on_top)
    assert (found["new"], found["small"], "compressible" in found) == (noise(9000), noise(9001), False)
    restore = api.restore(arn)
    assert differences(before, view(api, restore)) == []
    assert set(found) == (set(before) | {"new"}) - {"compressible"}
    assert problems(golden.store.data_dir) == []


@pytest.mark.parametrize(
    "golden", [path for path in GOLDEN if (path / "data" / "records").is_dir()], ids=lambda p: p.name
)
def test_the_catalog_is_rebuilt_from_old_records(golden, tmp_path):
    """Old packs, records and keyring are enough to restore every point, tag and byte."""

    def rebuild(data_dir):
        for _ in rebuild_directory(data_dir, existing_keyring(data_dir), outcome, clock=FrozenClock()):
            pass

    outcome = RebuildResult()
    rebuilt = Golden(golden, tmp_path, without=("catalog.sqlite", "catalog.sqlite-wal"), before=rebuild)
    rebuilt.forget()
    assert rebuilt.differences("points", "point_tags", "vault_tags") == []
    assert outcome.losses == []
    rebuilt.store.service.close()
    assert problems(rebuilt.store.data_dir) == []


@pytest.mark.parametrize("first", ["open it", "back up", "collect"])
def test_records_of_an_earlier_version_are_corrected(first, tmp_path):
    """A rebuild from the old records would lose objects or bring back removed ones. After an open it is exact."""
    golden = STORES / "retention-6"
    manifest = json.loads((golden / "manifest.json").read_text(encoding="utf-8"))
    clock = FrozenClock(manifest["now_ms"])
    store = Store(copied(golden / "data", tmp_path / "data"), clock=clock, new_id=counting_ids(FIRST_NEW_ID))
    if first == "back up":
        store.api().backup({"later": noise(1)}, resource=CHAIN)
    if first == "collect":
        collect_all(store.service.context, quarantine_ms=0)
    assert store.rebuild().losses == []
    for arn, contents in manifest["points"].items():
        assert store.api().restored(arn) == {name: base64.b64decode(data) for name, data in contents.items()}
    assert len(list(store.service.context.records.names("commit"))) == len(manifest["points"]) + (first == "back up")
    assert problems(store.data_dir) == []
    store.service.close()


def test_the_newest_schema_has_a_golden_directory():
    """A migration without a golden directory would be untested."""
    migrations = resources.files("cryostore.catalog.migrations").iterdir()
    newest = max(int(entry.name.partition("_")[0]) for entry in migrations if entry.name.endswith(".sql"))
    place = STORES / f"schema-{newest}"
    assert place.is_dir(), (
        f"run `PYTHONPATH=tests python -m support.stores.golden_store`, and commit stores/{place.name}"
    )
