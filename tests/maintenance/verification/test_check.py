"""A check finds every contradiction between catalog and packs, and reports nothing that is sound."""

from __future__ import annotations

import itertools

import pytest

from cryostore.chunks.envelope import HEADER_BYTES
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, pack_key
from cryostore.core.digest import Payload
from cryostore.core.errors import StorageUnavailableError
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.verification import finding_kinds
from cryostore.maintenance.verification.check import CheckResult, check
from cryostore.service.operations.objects import write
from support.faults.damaging import blob, damaged, noise, row_of, spoil, to_end
from support.requests.api import new_resource, sha
from support.stores.collecting import REQUESTS, Scene
from support.stores.memory_store import Process
from support.stores.shop import DATA, Shop

FIELD_PLACES = [0, 4, 5, 6, 7, 8, 24, 40, 52, 84, 88, 92]  # the first byte of each field of an envelope's header


@pytest.fixture
def shop():
    shop = Shop()
    shop.close_packs()
    return shop


def checked(context, **options):
    """Check to the end, and return the result."""
    outcome = CheckResult()
    to_end(check(context, outcome, **options))
    return outcome


def counts(outcome):
    """Return the findings and their counts."""
    return {found.kind.name: found.count for found in outcome.findings}


def affected_points(outcome):
    """Return the names of affected objects by recovery point."""
    return {point.recovery_point_arn: sorted(point.names) for point in outcome.damage.points}


def change(shop, statement, **values):
    """Change a row without telling any process."""
    assert shop.store.database.write(lambda transaction: transaction.run(statement, **values)) > 0


def everything(store):
    """Return all rows and all bytes."""
    tables = ("chunk", "pack", "object", "upload", "upload_chunk", "chunk_list", "recovery_point", "backup_job")
    rows = [store.database.read(lambda t, name=name: t.rows(f"SELECT * FROM {name}")) for name in tables]
    return rows, {key: bytes(store.blobs.get(key)) for key in store.blobs.list()}


@pytest.mark.parametrize("data", [False, True])
def test_a_sound_store_has_no_findings(shop, data):
    before = everything(shop.store)
    outcome = checked(shop.context, data=data)
    assert counts(outcome) == {}
    assert outcome.is_clean
    assert (outcome.packs.packs, outcome.packs.chunks, outcome.packs.garbage, outcome.objects) == (2, 6, 0, 6)
    assert everything(shop.store) == before


@pytest.mark.parametrize("place", FIELD_PLACES)
def test_a_flipped_bit_in_an_envelopes_header(shop, place):
    """In any field, also in the last envelope of a pack."""
    for data in (DATA[1], DATA[2], DATA[5]):
        spoil(shop.store, data, place)
    outcome = checked(shop.context)
    assert counts(outcome) == {"chunk-damaged": 3}
    assert affected_points(outcome) == {shop.point: ["object 1", "object 2", "object 5"]}
    assert not outcome.is_clean


@pytest.mark.parametrize("place", [HEADER_BYTES, HEADER_BYTES + 50, -1])
def test_a_flipped_bit_in_the_sealed_bytes_is_found_with_data(shop, place):
    spoil(shop.store, DATA[1], place)
    assert counts(checked(shop.context)) == {}
    outcome = checked(shop.context, data=True)
    assert counts(outcome) == {"chunk-damaged": 1}
    assert affected_points(outcome) == {shop.point: ["object 1"]}


@pytest.mark.parametrize("place", range(0, PACK_HEADER_BYTES, 4))
def test_a_flipped_bit_in_the_header_of_a_pack(shop, place):
    blob(shop.store, row_of(shop.store, DATA[0]).pack_name)[place] ^= 1
    outcome = checked(shop.context)
    assert counts(outcome) == {"pack-header": 1}
    assert outcome.damage.points == []


def test_a_pack_under_the_name_of_another(shop):
    first, second = (row_of(shop.store, data).pack_name for data in (DATA[0], DATA[5]))
    blobs = shop.store.blobs._blobs
    blobs[pack_key(first)], blobs[pack_key(second)] = blobs[pack_key(second)], blobs[pack_key(first)]
    assert counts(checked(shop.context)) == {"pack-header": 2, "chunk-misplaced": 6}


def test_a_missing_pack(shop):
    shop.store.blobs.delete(pack_key(row_of(shop.store, DATA[0]).pack_name))
    outcome = checked(shop.context)
    assert counts(outcome) == {"pack-missing": 1}
    assert affected_points(outcome) == {shop.point: ["object 0", "object 1", "object 2"]}


def test_a_pack_that_is_too_short(shop):
    row = row_of(shop.store, DATA[1])
    del blob(shop.store, row.pack_name)[row.pack_offset + 50 :]
    outcome = checked(shop.context)
    assert counts(outcome) == {"chunk-damaged": 2}  # and no torn tail, since rows point to it
    assert affected_points(outcome) == {shop.point: ["object 1", "object 2"]}


def test_an_envelope_of_another_vault_in_the_place_of_this_one(shop):
    shop.api.new_vault()
    shop.api.backup({"theirs": DATA[0]}, resource=new_resource())
    mine, theirs = row_of(shop.store, DATA[0]), row_of(shop.store, DATA[0], vault_id=2)
    envelope = blob(shop.store, theirs.pack_name)[theirs.pack_offset :][: theirs.sealed_length]
    blob(shop.store, mine.pack_name)[mine.pack_offset : mine.pack_offset + mine.sealed_length] = envelope
    outcome = checked(shop.context)
    assert counts(outcome) == {"chunk-misplaced": 1}
    assert affected_points(outcome) == {shop.point: ["object 0"]}


def test_two_rows_that_point_to_one_place(shop):
    """One of them should point to another envelope."""
    change(
        shop,
        "UPDATE chunk SET pack_offset = (SELECT pack_offset FROM chunk WHERE digest = :one) WHERE digest = :two",
        one=sha(DATA[0]),
        two=sha(DATA[1]),
    )
    outcome = checked(shop.context)
    assert counts(outcome) == {"chunk-misplaced": 1}
    assert outcome.packs.garbage == 1


def test_a_torn_tail(shop):
    name = row_of(shop.store, DATA[5]).pack_name
    blob(shop.store, name).extend(blob(shop.store, name)[PACK_HEADER_BYTES:][:150])
    assert counts(checked(shop.context)) == {"torn-tail": 1}


def test_garbage_is_counted_and_no_finding(shop):
    change(shop, "DELETE FROM object WHERE name = :name", name=b"object 1")
    change(shop, "DELETE FROM chunk WHERE digest = :digest", digest=sha(DATA[1]))
    outcome = checked(shop.context)
    assert outcome.is_clean
    assert outcome.packs.garbage == 1
    assert outcome.packs.garbage_bytes > len(DATA[1])


def test_an_unknown_pack_is_reported(shop):
    location = shop.context.store.put(Payload(noise(50)), shop.context.keys.sealing(1).key)
    assert counts(checked(shop.context)) == {}, "its writer is alive"
    shop.restart()
    outcome = checked(shop.context)
    assert counts(outcome) == {"pack-unknown": 1}
    assert location.pack_id in outcome.findings[0].examples[0]


def test_a_chunk_without_a_row(shop):
    job = shop.api.start_job(resource=new_resource())
    upload = shop.api.start(job, "uploading")
    shop.api.chunk(job, upload, 0, DATA[1])
    change(shop, "DELETE FROM chunk WHERE digest = :digest", digest=sha(DATA[1]))
    outcome = checked(shop.context)
    assert counts(outcome) == {"chunk-missing": 2}
    assert affected_points(outcome) == {shop.point: ["object 1"]}
    assert [(hurt.backup_job_id, hurt.names) for hurt in outcome.damage.jobs] == [(job, ["uploading"])]


def test_metadata_without_a_row(shop):
    job = shop.api.start_job(resource=new_resource())
    shop.api.upload(job, "with blob", [DATA[0]], blob=noise(77))
    point = shop.api.commit(job)
    change(shop, "DELETE FROM chunk WHERE digest = :digest", digest=sha(noise(77)))
    outcome = checked(shop.context)
    assert counts(outcome) == {"chunk-missing": 1}
    assert affected_points(outcome) == {point: ["with blob"]}


def test_chunks_that_a_scrub_marked_are_reported_once(shop):
    change(shop, "UPDATE chunk SET damaged_ms = 1 WHERE digest = :digest", digest=sha(DATA[1]))
    spoil(shop.store, DATA[1], 0)
    outcome = checked(shop.context)
    assert counts(outcome) == {"chunk-damaged": 1}
    assert affected_points(outcome) == {shop.point: ["object 1"]}


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("UPDATE object SET chunks = x'00' WHERE name = :name", "list-damaged"),
        ("UPDATE object SET chunks = NULL WHERE name = :name", "list-damaged"),
        (
            "UPDATE object SET chunks = (SELECT chunks FROM object WHERE name = :other) WHERE name = :name",
            "list-damaged",
        ),
        ("UPDATE object SET chunk_count = 2 WHERE name = :name", "list-damaged"),
        ("UPDATE object SET length = 2 WHERE name = :name", "list-damaged"),
        ("UPDATE object SET lineage_id = 77 WHERE name = :name", "list-damaged"),
        ("UPDATE object SET summary = x'00' WHERE name = :name", "summary-differs"),
        ("UPDATE chunk SET length = 7 WHERE digest = :digest", "list-damaged"),
    ],
)
def test_a_list_that_does_not_fit(shop, statement, name):
    shop.api.backup({"other": b"other"}, resource=new_resource())
    known = {"name": b"object 1", "other": b"other", "digest": sha(DATA[1])}
    change(shop, statement, **{key: value for key, value in known.items() if f":{key}" in statement})
    found = counts(checked(shop.context))
    assert found[name] == 1
    assert checked(shop.context).is_clean == (name == "summary-differs")


def test_a_missing_part_of_a_long_list(shop):
    job = shop.api.start_job(resource=new_resource())
    shop.api.upload(job, "long", [number.to_bytes(4, "big") for number in range(1100)])
    shop.api.commit(job)
    assert counts(checked(shop.context)) == {}
    change(shop, "DELETE FROM chunk_list WHERE part = 1")
    assert counts(checked(shop.context)) == {"list-damaged": 1}


def test_a_row_that_refers_to_nothing(shop):
    shop.store.database.connection.execute("PRAGMA foreign_keys = OFF")
    change(shop, "UPDATE recovery_point SET vault_id = 77")
    assert counts(checked(shop.context)) == {"catalog-damaged": 1}


def test_a_missing_key_is_reported_and_nothing_counts_as_damaged(shop, monkeypatch):
    process = Process(shop.store)
    monkeypatch.setattr(shop.store.keyring, "_key", shop.store.keyring._key.__class__("another", bytes(32)))
    assert counts(checked(process.context, data=True)) == {"no-key": 1}


def test_an_unreachable_disk_is_reported_and_nothing_counts_as_damaged(shop):
    for at in range(1, 60):
        shop.process.blobs.fail("get", at)
    found = counts(checked(shop.context, data=True))
    assert set(found) == {"unreadable"}
    assert damaged(shop.store) == set()


def test_each_kind_of_finding_has_a_meaning_and_an_advice():
    assert len({kind.name for kind in finding_kinds.KINDS}) == len(finding_kinds.KINDS)
    assert all(kind.meaning and kind.advice for kind in finding_kinds.KINDS)


@pytest.mark.parametrize("data", [False, True], ids=["headers", "data"])
@pytest.mark.parametrize("request_", [*REQUESTS, None], ids=lambda request: request.__name__ if request else "nothing")
def test_concurrent_requests_cause_no_findings(request_, data):
    """Between any two steps, a request and a whole collection move rows, and empty and delete packs."""
    for count in itertools.count(request_ is not None and REQUESTS.index(request_) % 6, 6):
        scene = Scene()
        outcome = CheckResult()
        steps = check(Process(scene.store).context, outcome, data=data)
        taken = list(itertools.islice(steps, count))
        scene.close_packs()
        collect_all(scene.collector.context, quarantine_ms=0)
        if request_:
            request_(scene)
        collect_all(scene.collector.context, quarantine_ms=0)
        list(steps)
        assert counts(outcome) == {}, count
        if len(taken) < count:
            break


def stop_and_collect(scene):
    """End the open job, and remove its upload and its rows."""
    scene.api.stop(scene.open_job)
    scene.api.maintain()


def delete_all_points(scene):
    """Delete every recovery point, with its rows."""
    for job in scene.restores:
        scene.api.end_restore(job)
    for point in scene.points:
        scene.api.delete_point(point)


@pytest.mark.parametrize("happens", [stop_and_collect, delete_all_points, REQUESTS[3]], ids=lambda one: one.__name__)
def test_changes_between_any_two_reads_cause_no_findings(happens, monkeypatch):
    """A request and two collections run before the first read of the catalog, before the second, and so on."""
    monkeypatch.setattr(write, "PART_CHUNKS", 2)  # so that lists have parts, which are deleted one by one
    for at in itertools.count(1):
        scene = Scene()
        scene.api.maintain = lambda scene=scene: maintain(scene.writer.service)
        job = scene.job()
        scene.api.upload(job, "long", [noise(number) for number in range(400, 405)])
        scene.points[scene.api.commit(job)] = {}
        process = Process(scene.store)
        reads, read = itertools.count(1), process.database.read

        def interrupted(work, scene=scene, reads=reads, read=read, at=at):
            if next(reads) == at:
                happens(scene)
                scene.close_packs()
                for _ in range(2):
                    collect_all(scene.collector.context, quarantine_ms=0)
            return read(work)

        process.database.read = interrupted
        outcome = checked(process.context)
        assert counts(outcome) == {}, at
        if next(reads) <= at:
            break


@pytest.mark.parametrize("place", [0, -1])
def test_damage_is_marked_and_the_next_upload_repairs_it(shop, place):
    spoil(shop.store, DATA[1], place)
    assert checked(shop.context, data=True).marked == 1
    assert damaged(shop.store) == {sha(DATA[1])}
    again = checked(shop.context, data=True)
    assert (counts(again), again.marked, affected_points(again)) == (
        {"chunk-damaged": 1},
        0,
        {shop.point: ["object 1"]},
    )
    shop.api.backup({"again": DATA[1]}, resource=new_resource())
    assert checked(shop.context, data=True).is_clean
    assert shop.api.restored(shop.point) == shop.contents


def test_chunks_of_a_missing_pack_are_marked_and_repaired(shop):
    shop.store.blobs.delete(pack_key(row_of(shop.store, DATA[0]).pack_name))
    assert checked(shop.context).marked == 3
    shop.api.backup(shop.contents, resource=new_resource())
    assert checked(shop.context).is_clean
    assert shop.api.restored(shop.point) == shop.contents


def test_damage_is_reported_even_if_it_cannot_be_marked(shop):
    """The catalog may be on a full or read-only disk."""
    for data in (DATA[1], DATA[2]):
        spoil(shop.store, data, 0)

    def refuse():
        raise StorageUnavailableError("read-only")

    shop.process.database.on_write(refuse)
    outcome = checked(shop.context)
    assert (counts(outcome), outcome.marked, outcome.not_marked) == ({"chunk-damaged": 2}, 0, "read-only")
    assert affected_points(outcome) == {shop.point: ["object 1", "object 2"]}


def test_marks_are_removed_when_the_bytes_prove_sound(shop):
    """The disk of a pack may have been away. Only a read of all bytes proves the chunks sound."""
    name = row_of(shop.store, DATA[0]).pack_name
    content = shop.store.blobs._blobs.pop(pack_key(name))
    assert checked(shop.context, data=True).marked == 3
    shop.store.blobs._blobs[pack_key(name)] = content
    spoil(shop.store, DATA[1])
    assert counts(checked(shop.context)) == {"chunk-damaged": 3}
    outcome = checked(shop.context, data=True)
    assert (counts(outcome), affected_points(outcome)) == ({"chunk-damaged": 1}, {shop.point: ["object 1"]})
    assert damaged(shop.store) == {sha(DATA[1])}
