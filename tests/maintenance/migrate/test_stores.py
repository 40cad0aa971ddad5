"""Moves of a store with a full history, to a shared place and back: it answers every request as before."""

from __future__ import annotations

import base64
import dataclasses
import json
from contextlib import ExitStack, closing

import msgspec
import pytest

from cryostore.catalog import open_catalog
from cryostore.chunks.marker import newest_marker, put_marker
from cryostore.core.errors import ConfigurationError, StorageFullError
from cryostore.core.ids import counting_ids
from cryostore.core.limits import MIB
from cryostore.core.time import FrozenClock
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.migrate import stores as migrate_stores
from cryostore.maintenance.migrate.run import MigrationResult
from cryostore.maintenance.migrate.stores import migrate_store, take_back_store
from cryostore.maintenance.verification.scrub import scrub_all
from cryostore.model.chunks import GetChunk
from cryostore.model.errors import ServiceUnavailableException
from cryostore.model.jobs import CommitBackupJob
from cryostore.model.objects import GetObjectMetadata
from cryostore.model.vaults import ListBackupVaults
from cryostore.service.opening.init import init
from cryostore.service.opening.open import open_service
from cryostore.service.opening.open_shared import open_shared_service
from support.faults.small_disk import small_disk
from support.services import postgres, s3
from support.stores import moving
from support.stores.collecting import noise
from support.stores.golden_store import SETTINGS, STORES
from support.stores.integrity import problems
from support.stores.moving import DirectoryStore, existing_keyring, move, opened_at
from support.stores.store_copy import copied
from support.stores.store_picture import differences

GOLDEN = max(STORES.glob("schema-*"), key=lambda path: int(path.name.rpartition("-")[2]))
CHAIN = "arn:aws:cryo:local-1:000000000000:fileset:golden:chain"


class Scene:
    """A copy of a golden directory, a place for a shared store, and one for a directory to move back to."""

    def __init__(self, folder, nodes):
        self.manifest = json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))
        self.clock = FrozenClock(self.manifest["now_ms"])
        self.begin = DirectoryStore(copied(GOLDEN / "data", folder / "begin"))
        keyring = folder / "keyring.json"
        keyring.write_bytes((self.begin.data_dir / "keyring.json").read_bytes())
        keyring.chmod(0o600)
        self.keyring = existing_keyring(folder, str(keyring))
        self.nodes = nodes(keyring)
        self.end = DirectoryStore(folder / "end", str(keyring))

    def there(self, **more):
        return move(self.begin, self.nodes, self.keyring, clock=self.clock, **more)

    def back(self, **more):
        return move(self.nodes, self.end, self.keyring, clock=self.clock, **more)

    def differences(self, place):
        """Return the differences between the store at a place and the golden store."""
        with opened_at(place, self.clock) as store:
            return differences(self.manifest["picture"], store.picture())


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path, lambda keyring: moving.shared(tmp_path / "shared", keyring))


@pytest.fixture
def real_scene(tmp_path, monkeypatch):
    """As `scene`, on PostgreSQL and S3."""
    for name, value in s3.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as opened:
        catalog = opened.enter_context(postgres.new_database())
        blobs = s3.fresh_url()
        yield Scene(tmp_path, lambda keyring: moving.shared(tmp_path / "shared", keyring, catalog=catalog, blobs=blobs))


def test_a_store_is_the_same_after_a_move_there_and_back(scene):
    """Every vault, tag, job, recovery point, restore job, object, list, checksum, metadata and byte."""
    assert scene.there(everything=True).is_clean
    assert scene.back().is_clean
    assert scene.differences(scene.end) == []
    assert problems(scene.end.data_dir) == []


def moves_twice(scene, other):
    """Move from one shared place to another, interrupted once, and then to a directory; back up at each place."""
    assert scene.there().is_clean
    with opened_at(scene.nodes, scene.clock) as store:
        points = {store.api.backup({"new": noise(9000)}): noise(9000)}
    first, scene.nodes = scene.nodes, other
    with closing(
        migrate_store(first, other, scene.keyring, MigrationResult(), clock=scene.clock, new_id=counting_ids(900))
    ) as cut:
        for step in cut:
            if step.stage == "rows":
                break
    for place in (first, other):
        with pytest.raises(ConfigurationError):
            open_shared_service(place.place)
    assert move(first, other, scene.keyring, clock=scene.clock, everything=True).is_clean
    assert move(first, other, scene.keyring, clock=scene.clock).done_before
    with pytest.raises(ConfigurationError, match="taken over"):
        open_shared_service(first.place)
    with opened_at(other, scene.clock) as store:
        points[store.api.backup({"new": noise(9001)})] = noise(9001)
        collect_all(store.service.context, quarantine_ms=0)
    assert scene.back().is_clean
    assert [line for line in scene.differences(scene.end) if "NumberOfRecoveryPoints" not in line] == []
    with opened_at(scene.end, scene.clock) as store:
        assert {point: store.api.restored(point)["new"] for point in points} == points
    assert problems(scene.end.data_dir) == []


def test_from_one_shared_place_to_another(scene, tmp_path):
    moves_twice(scene, moving.shared(tmp_path / "other", scene.end.keyring))


def test_from_one_shared_place_to_another_on_real_services(real_scene, tmp_path):
    """Another database on the same server, another prefix in the same bucket."""
    with postgres.new_database(migrated=False) as catalog:
        moves_twice(
            real_scene,
            moving.shared(tmp_path / "other", real_scene.end.keyring, catalog=catalog, blobs=s3.fresh_url()),
        )


def continues_at(scene, place):
    """Old tokens still work, open jobs can be finished, and backups, deletions and collections continue."""
    with opened_at(place, scene.clock) as store:
        api, restore = store.api, scene.manifest["running_restore"]
        for held in scene.manifest["tokens"]:
            api.call(GetObjectMetadata(storage_job_id=restore, object_token=held["object_token"]))
            for token, checksum in held["chunk_tokens"]:
                assert api.call(GetChunk(storage_job_id=restore, chunk_token=token)).checksum == checksum
        (upload,) = scene.manifest["open_uploads"]
        parts = {index: base64.b64decode(text) for index, text in upload["chunks"]}
        api.complete(upload["job"], upload["upload"], list(parts.values()))
        arn = api.call(CommitBackupJob(backup_job_id=upload["job"], discard_open_uploads=True)).recovery_point_arn
        assert api.restored(arn)[upload["name"]] == b"".join(parts[index] for index in sorted(parts))
        assert scene.manifest["waiting_job"] == api.start_job(
            resource=scene.manifest["waiting_resource"], idempotency_token="waiting"
        )
        api.resource = CHAIN
        on_top = api.backup({"new": noise(9000), "small": noise(9001), "compressible": None})
        api.delete_point(scene.manifest["points"]["branch 1"])
        removed = sum(collect_all(store.service.context, quarantine_ms=0).removed for _ in range(3))
        found = api.restored(on_top)
        assert (found["new"], found["small"], "compressible" in found) == (noise(9000), noise(9001), False)
        assert scrub_all(store.service.context).is_clean
        return removed


def test_work_continues_after_a_move(scene):
    scene.there()
    assert continues_at(scene, scene.nodes)


def test_a_running_node_notices_that_its_store_was_moved(scene):
    """After its next check it answers no more requests, and no node can start."""
    scene.there()
    with opened_at(scene.nodes, scene.clock) as node:
        node.service.check_still_current()
        scene.back()
        with pytest.raises(ConfigurationError, match="has taken over"):
            node.service.check_still_current()
        with pytest.raises(ServiceUnavailableException):
            node.api.start_job()
    with pytest.raises(ConfigurationError, match="has taken over"), opened_at(scene.nodes, scene.clock):
        pass


def test_a_superseded_catalog_is_not_moved(scene):
    scene.there()
    with closing(scene.nodes.place.open_blobs()) as blobs:
        newest = newest_marker(blobs)
        put_marker(blobs, msgspec.structs.replace(newest, number=newest.number + 1, token="another"))
    with pytest.raises(ConfigurationError, match="another catalog has taken over"):
        scene.back()
    assert not list(scene.end.data_dir.rglob("*.pack"))


def test_a_store_is_taken_back_unless_another_catalog_has_taken_over(scene):
    scene.there()
    scene.back()
    take_back_store(scene.nodes, scene.keyring)
    with opened_at(scene.nodes, scene.clock) as store:
        store.service.check_still_current()
    scene.end = DirectoryStore(scene.end.data_dir.with_name("another end"), scene.end.keyring)
    scene.back()
    with closing(scene.nodes.place.open_blobs()) as blobs:
        newest = newest_marker(blobs)
        put_marker(blobs, msgspec.structs.replace(newest, number=newest.number + 1, token="another"))
    with pytest.raises(ConfigurationError, match="another catalog has taken over"):
        take_back_store(scene.nodes, scene.keyring)


def test_sessions_of_other_programs_are_seen_on_postgresql(tmp_path, monkeypatch):
    monkeypatch.setattr(migrate_stores, "LOOKS_MAX", 2)
    with postgres.new_database() as catalog:
        scene = Scene(tmp_path, lambda keyring: moving.shared(tmp_path / "shared", keyring, catalog=catalog))
        with closing(open_catalog(catalog)), pytest.raises(ConfigurationError, match="1 sessions of other programs"):
            scene.there()
        assert scene.there().is_clean


def test_a_store_whose_arns_name_another_region_is_not_moved_into_a_directory(scene, tmp_path):
    init(scene.nodes.place, tmp_path / "credentials", region="eu-central-1", clock=scene.clock)
    with pytest.raises(ConfigurationError, match="name region eu-central-1 and account 000000000000"):
        scene.back()
    with opened_at(scene.nodes, scene.clock) as store:
        assert store.api.listed(ListBackupVaults())


def test_a_full_target_disk_ends_the_run_and_the_next_run_continues(scene, tmp_path):
    (tmp_path / "shared").mkdir(exist_ok=True)
    with small_disk(tmp_path / "disk", 4) as disk:
        scene.nodes = moving.shared(tmp_path / "disk" / "shared", scene.end.keyring)
        disk.fill(but_bytes=300_000)
        with pytest.raises(StorageFullError, match=str(tmp_path / "disk")) as raised:
            scene.there()
        assert "continues where it stopped" in raised.value.hint
        disk.clear()
        assert scene.there().is_clean


def test_a_store_on_a_full_disk_can_be_moved_away(scene, tmp_path):
    """The space of the disk reserve is used for its marks."""
    with small_disk(tmp_path / "disk", 24) as disk:
        scene.begin = DirectoryStore(copied(scene.begin.data_dir, disk.path / "data"))
        settings = dataclasses.replace(SETTINGS, reserve_bytes=MIB)
        open_service(scene.begin.data_dir, clock=scene.clock, settings=settings).close()
        disk.fill()
        assert scene.there().is_clean
        disk.clear()
