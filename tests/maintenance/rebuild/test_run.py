"""A lost catalog is rebuilt from the packs, the records and the keyring: what comes back, and what does not."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager

import pytest

from cryostore.catalog.rows import records
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.records import RecordName
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from cryostore.core.ids import counting_ids
from cryostore.core.time import DAY_MS, MINUTE_MS
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.rebuild.run import Rebuild, RebuildResult
from cryostore.maintenance.rebuild.stores import rebuild_directory
from cryostore.service import recording as service_records
from cryostore.service.opening.data_directory import existing_keyring
from support.catalogs.catalog_model import RESOURCES, CatalogModel
from support.catalogs.memory_database import MemoryDatabase
from support.stores.golden_store import SETTINGS, Story
from support.stores.in_process import opened
from support.stores.integrity import problems
from support.stores.memory_keyring import MemoryKeyring
from support.stores.store_picture import differences, picture

COVERS = ("maintenance/rebuild/stores.py",)


KEPT = ("COMPLETED", "PARTIAL")


def rebuild(data_dir, clock, **more):
    """Delete the catalog and rebuild it. Returns the result."""
    for path in data_dir.glob("catalog*"):
        path.unlink()
    outcome = RebuildResult()
    for _ in rebuild_directory(data_dir, existing_keyring(data_dir), outcome, clock=clock, **more):
        pass
    return outcome


@contextmanager
def rebuilt(store):
    """Rebuild the catalog of the store; the result is its `outcome`."""
    store.service.close()
    store.outcome = rebuild(store.data_dir, store.clock)
    store.service = store.open()
    yield store.api()


def lasting(shown):
    """Return what must survive the loss of a catalog: all but restore jobs, and jobs without a recovery point."""
    arns = set(shown["points"])
    points = {arn: point for arn, point in shown["points"].items() if point["described"]["Status"] in KEPT}
    jobs = {name: job for name, job in shown["jobs"].items() if job.get("RecoveryPointArn") in points}
    ids = {arn.rpartition(":")[2] for arn in points}
    assert arns >= set(points)
    tags = {point: tags for point, tags in shown["point_tags"].items() if point in ids}
    vaults = {
        name: vault
        | {"NumberOfRecoveryPoints": sum(point["described"]["BackupVaultName"] == name for point in points.values())}
        for name, vault in shown["vaults"].items()
    }
    return {"vaults": vaults, "vault_tags": shown["vault_tags"], "points": points, "jobs": jobs, "tags": tags}


@pytest.fixture
def store(tmp_path):
    """A store with a history of all operations."""
    with opened(tmp_path / "data", new_id=counting_ids(), settings=SETTINGS) as store:
        yield store


@pytest.mark.parametrize("part_bytes", [1, 500, 4 << 20], ids=["a part per entry", "several parts", "one part"])
def test_everything_committed_comes_back(store, monkeypatch, part_bytes):
    """Recovery points, objects, lists, bytes, metadata, tags, lifecycles, vaults and jobs, however records are cut."""
    monkeypatch.setattr(service_records, "PART_BYTES_TARGET", part_bytes)
    Story(store).tell()
    maintain(store.service)
    before = lasting(picture(store.api()))
    assert len(before["points"]) > 5
    assert before["tags"]
    with rebuilt(store) as api:
        assert store.outcome.losses == []
        assert problems(store.data_dir) == []
        after = lasting(picture(api))
    assert differences(before, after) == differences(after, before) == []


def test_the_store_can_be_used_after_a_rebuild(store):
    """Backups continue from the old recovery points, garbage is collected, and the catalog can be lost again."""
    story = Story(store)
    story.tell()
    maintain(store.service)
    for number in range(2):
        with rebuilt(store) as api:
            story.api = api
            story.resource("chain")
            job = api.running_job()
            names = set(api.names(job))
            assert len(names) > 3, "the base is the newest point"
            api.upload(job, "long again", [bytes([number, index % 256]) * 40 for index in range(1100)])
            api.commit(job)
            for _ in range(2):
                store.clock.advance(DAY_MS)
                maintain(store.service)
                collect_all(store.service.context, quarantine_ms=0)
            assert problems(store.data_dir) == []
    before = lasting(picture(store.api()))
    with rebuilt(store) as api:
        assert differences(before, lasting(picture(api))) == []


def test_without_the_keyring_nothing_is_revealed(store, tmp_path):
    """A missing keyring and a foreign one are refused before anything is written."""
    Story(store).chain()
    store.service.close()
    own = store.data_dir / "keyring.json"
    with opened(tmp_path / "other"):
        foreign = (tmp_path / "other" / "keyring.json").read_bytes()
    kept = own.read_bytes()
    own.write_bytes(foreign)
    with pytest.raises(KeyUnavailableError, match="no master key"):
        rebuild(store.data_dir, store.clock)
    assert not (store.data_dir / "catalog.sqlite").exists()
    own.unlink()
    with pytest.raises(ConfigurationError, match="without it nothing"):
        rebuild(store.data_dir, store.clock)
    own.write_bytes(kept)
    own.chmod(0o600)
    assert rebuild(store.data_dir, store.clock).losses == []
    store.service = store.open()


def test_a_lost_catalog_is_not_replaced_by_an_empty_one(store):
    """A server that finds data without a catalog advises a rebuild and changes nothing."""
    Story(store).chain()
    store.service.close()
    for path in store.data_dir.glob("catalog*"):
        path.unlink()
    with pytest.raises(ConfigurationError) as refused:
        store.open()
    assert "cryo rebuild-catalog" in refused.value.hint
    assert not (store.data_dir / "catalog.sqlite").exists()
    rebuild(store.data_dir, store.clock)
    store.service = store.open()


def test_a_rebuild_and_a_server_exclude_each_other(store):
    """A rebuild is refused while a server uses the directory, and a server while a rebuild runs."""
    Story(store).chain()
    steps = rebuild_directory(
        store.data_dir, existing_keyring(store.data_dir), RebuildResult(), clock=store.clock, replace=True
    )
    with pytest.raises(ConfigurationError, match="a server or another program uses it"):
        next(steps)
    store.service.close()
    steps = rebuild_directory(
        store.data_dir, existing_keyring(store.data_dir), RebuildResult(), clock=store.clock, replace=True
    )
    next(steps)
    with pytest.raises(ConfigurationError, match="is being rebuilt"):
        store.open()
    for _ in steps:
        pass
    store.service = store.open()


def test_an_existing_catalog_is_kept(store):
    """A catalog is replaced only on request; the old one is kept with its log beside the new one."""
    Story(store).chain()
    store.service.close()
    keyring = existing_keyring(store.data_dir)
    with pytest.raises(ConfigurationError, match="catalog.sqlite exists"):
        next(rebuild_directory(store.data_dir, keyring, RebuildResult(), clock=store.clock))
    old = (store.data_dir / "catalog.sqlite").read_bytes()
    (store.data_dir / "catalog.sqlite-wal").write_bytes(b"a log of the old one")
    for _ in rebuild_directory(store.data_dir, keyring, RebuildResult(), clock=store.clock, replace=True):
        pass
    assert (store.data_dir / "catalog.sqlite.replaced.1").read_bytes() == old
    assert (store.data_dir / "catalog.sqlite-wal.replaced.1").read_bytes() == b"a log of the old one"
    assert not (store.data_dir / "catalog.sqlite-wal").exists()
    store.service = store.open()
    assert problems(store.data_dir) == []


def test_a_rebuild_may_be_interrupted_at_any_step(store):
    """The store is unchanged, and the next rebuild does all the work."""
    Story(store).chain()
    before = lasting(picture(store.api()))
    store.service.close()
    for path in store.data_dir.glob("catalog*"):
        path.unlink()
    broken_off = 0
    while True:
        steps = rebuild_directory(store.data_dir, existing_keyring(store.data_dir), RebuildResult(), clock=store.clock)
        if sum(1 for _, _ in zip(range(broken_off + 1), steps, strict=False)) <= broken_off:
            break
        assert not (store.data_dir / "catalog.sqlite").exists()
        broken_off += 1
        steps.close()
    assert broken_off > 5
    store.service = store.open()
    assert differences(before, lasting(picture(store.api()))) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
@pytest.mark.parametrize("noun", ["commit", "vault", "store"])
def test_a_damaged_record_loses_only_its_own_data(store, noun, damage):
    """The loss is reported, everything else comes back, and nothing wrong comes back."""
    Story(store).tell()
    maintain(store.service)
    before = lasting(picture(store.api()))
    store.service.close()
    paths = sorted((store.data_dir / "records" / noun).iterdir())
    for path in paths if damage == "flipped" else paths[-2:]:
        data = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(data[: len(data) // 2] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
        outcome = rebuild(store.data_dir, store.clock)
        assert damage == "gone" or outcome.losses
        store.service = store.open()
        after = lasting(picture(store.api()))
        whole = [arn for arn, point in after["points"].items() if point["described"]["Status"] == "COMPLETED"]
        for arn in whole:
            assert after["points"][arn] == before["points"][arn], "a point that counts as complete has lost nothing"
        assert set(after["points"]) <= set(before["points"])
        store.service.close()
        path.write_bytes(data)
        path.chmod(0o600)
        for other in (store.data_dir / "records" / noun).iterdir():
            assert other.exists()
    store.outcome = rebuild(store.data_dir, store.clock)
    store.service = store.open()
    assert differences(before, lasting(picture(store.api()))) == []


def test_a_record_under_another_name_is_damaged(store):
    """So no recovery point can pass for another."""
    Story(store).tell()
    store.service.close()
    one, other, *_ = sorted((store.data_dir / "records" / "commit").iterdir())
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert rebuild(store.data_dir, store.clock).losses
    one.write_bytes(first)
    other.write_bytes(second)
    rebuild(store.data_dir, store.clock)
    store.service = store.open()


def test_the_root_access_key_is_the_same(store):
    """The file `credentials` stays valid."""
    root = store.service.access
    access_key_id = (store.data_dir / "credentials").read_text().split("aws_access_key_id = ")[1].split()[0]
    secret = root.secret(access_key_id)
    with rebuilt(store):
        assert store.service.access.secret(access_key_id) == secret is not None


def test_old_tokens_are_invalid(store):
    """A token names rows of the old catalog; the new catalog refuses it."""
    api = store.api()
    arn = api.backup({"one": b"1"})
    token = api.found(api.restore(arn), "one").object_token
    with rebuilt(store) as api:
        api.resource = "arn:aws:cryo:local-1:000000000000:fileset:another"
        restore = api.restore(arn)
        with pytest.raises(Exception, match="ObjectToken"):
            api.read_chunks(restore, token)


# --- lineages, with the model of the catalog


@pytest.fixture(params=[1, 3])
def model(request):
    with CatalogModel(batch_rows=request.param) as model:
        yield model


def point(model, *names, base="latest", remove=(), resource=RESOURCES[0], parts=0):
    """Commit a recovery point whose job put and removed these names."""
    job = model.run(resource, base)
    return model.commit(model.remove(model.put(job, *names, parts=parts), *remove))


def test_rows_of_a_deleted_tip_do_not_come_back(model):
    """The lineage continues from the point below it, without the rows of the tip."""
    point(model, b"a", b"b")
    model.delete(point(model, b"a", b"aa", remove=[b"b"]))
    model.maintain()
    point(model, b"a/")
    model.lose_the_catalog()


def test_a_stale_record_is_skipped(model):
    """A process died and left the record of a deleted tip. The next commit shows that it is void."""
    blobs = model.context.records._blobs
    point(model, b"a", b"b")
    tip = point(model, b"aa", remove=[b"b"])
    kept = {key: blobs.get(key) for key in blobs.list("records/commit/")}
    model.delete(tip)
    model.maintain()
    gone = {key: data for key, data in kept.items() if blobs.stat(key) is None}
    assert gone
    point(model, b"a/")
    for key, data in gone.items():
        blobs.put(key, data)
    model.lose_the_catalog()
    model.maintain()
    assert [key for key in gone if blobs.stat(key) is not None] == [], "the stale record is removed"


def test_a_branch_outlives_the_points_it_is_based_on(model):
    """Each point of a chain of branches sees lineages that have no points left."""
    first = point(model, b"a", b"b", b"aa")
    second = point(model, b"b", base=first, resource=RESOURCES[1])
    third = point(model, b"aa", base=second)
    model.delete(first)
    model.delete(second)
    model.maintain()
    assert third.view.keys() == {b"a", b"b", b"aa"}
    model.lose_the_catalog()
    model.lose_the_catalog()


def test_a_point_between_two_others_is_deleted(model):
    """Rows that only it saw are gone; rows that it wrote and the next point sees are still there."""
    point(model, b"a", b"b")
    middle = point(model, b"aa", b"a/", remove=[b"a"], parts=2)
    point(model, b"aa", remove=[b"b"])
    model.delete(middle)
    model.maintain()
    model.lose_the_catalog()


def test_records_contain_no_deleted_rows():
    """Rows that only deleted points saw are in no record, whichever point wrote them."""
    with CatalogModel() as model:
        names = [b"%03d" % number for number in range(80)]
        keeps = point(model, *names, b"keeps"), point(model, b"x")
        point(model, *names)
        for gone in keeps:  # the second sees rows of the first until it is deleted; its record lacked them
            model.delete(gone)
            model.maintain()
        rows = model.database.read(lambda t: records.page(t, records.FIRST, 99))
        assert [row.entries for row in rows if row.noun == records.COMMIT] == [82]
        model.lose_the_catalog()


def test_a_commit_without_its_record_is_not_acknowledged():
    """A repeated request is acknowledged once the record is written."""
    blobs = MemoryBlobs()
    put, failures = blobs.put, [ConfigurationError("no")]

    def fail_once(key, data):
        if failures and "commit" in key:
            raise failures.pop()
        put(key, data)

    with CatalogModel() as model:
        model.context = dataclasses.replace(model.context, records=type(model.context.records)(blobs, MemoryKeyring()))
        blobs.put = fail_once
        job = model.put(model.run(), b"a")
        with pytest.raises(ConfigurationError):
            model.commit(job)
        assert list(blobs.list("records/commit/")) == []
        model.commit(job)
        assert len(list(blobs.list("records/commit/"))) == 1


def test_the_names_of_records_sort_in_the_order_of_writing():
    names = [RecordName("commit", 1, 2, 3, 4), RecordName("commit", 1, 2, 10, 0), RecordName("commit", 10, 1, 1, 1)]
    assert sorted(names, key=lambda name: name.key) == names


def test_an_empty_store_gives_an_empty_catalog():
    """A store without records has no vaults, not even the default one."""
    database, outcome = MemoryDatabase(), RebuildResult()
    for _ in Rebuild(database, MemoryBlobs(), MemoryKeyring(), outcome, now_ms=MINUTE_MS).run():
        pass
    assert outcome == RebuildResult()
    database.close()
