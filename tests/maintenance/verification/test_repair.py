"""Repair restores chunks that have a sound copy anywhere, names the others, and touches nothing sound."""

from __future__ import annotations

import itertools
import zlib

import pytest

from cryostore.chunks.envelope import EnvelopeHeader
from cryostore.chunks.packs.format import CHECK, PACK_HEADER_BYTES, encode_header, pack_key
from cryostore.core.digest import Payload
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.verification import repair as repairing
from cryostore.maintenance.verification.check import CheckResult, check
from cryostore.maintenance.verification.repair import RepairResult, SalvageResult, repair
from support.faults.damaging import blob, broken_scene, damaged, noise, row_of, scrubbed, spoil, to_end
from support.requests.api import Api, new_resource, sha
from support.stores import audit
from support.stores.collecting import REQUESTS
from support.stores.memory_store import Process
from support.stores.shop import DATA, Shop

COVERS = (
    "maintenance/verification/pack_check.py",
    "maintenance/verification/catalog_check.py",
)


@pytest.fixture
def shop():
    shop = Shop()
    shop.close_packs()
    return shop


def repaired(context, **options):
    """Repair to the end, and return the result."""
    outcome = RepairResult()
    to_end(repair(context, outcome, **options))
    return outcome


def run(shop, statement, **values):
    """Change a row without telling any process."""
    assert shop.store.database.write(lambda transaction: transaction.run(statement, **values)) > 0


def lose_row(shop, data):
    """Delete the row of a chunk from the catalog."""
    run(shop, "DELETE FROM chunk WHERE digest = :digest", digest=sha(data))


def lose_pack(shop, data):
    """Delete the rows of a pack and its chunks from the catalog."""
    name = row_of(shop.store, data).pack_name
    run(shop, "DELETE FROM chunk WHERE pack_number = (SELECT pack_number FROM pack WHERE name = :name)", name=name)
    run(shop, "DELETE FROM pack WHERE name = :name", name=name)
    return name


def copy_to_another_pack(shop, data):
    """Copy a chunk's envelope to a pack that has rows of other chunks. Returns that pack."""
    row = row_of(shop.store, data)
    envelope = bytes(blob(shop.store, row.pack_name)[row.pack_offset :][: row.sealed_length])
    shop.api.backup({"neighbour": noise(60)}, resource=new_resource())
    (location,) = shop.context.store.append([envelope])
    assert location.pack_id == row_of(shop.store, noise(60)).pack_name
    shop.restart()
    return location


def is_whole(shop):
    """Check that all can be restored, and that nothing is wrong."""
    assert shop.api.restored(shop.point) == shop.contents
    assert audit.problems(shop.context, shop.store.database) == []
    outcome = CheckResult()
    to_end(check(shop.context, outcome, data=True))
    assert outcome.findings == []


def test_a_sound_store_needs_no_repair(shop):
    before = everything(shop.store)
    outcome = repaired(shop.context)
    assert outcome == RepairResult()
    assert everything(shop.store) == before


def everything(store):
    """Return all rows and all bytes."""
    tables = ("chunk", "pack", "object", "recovery_point", "collection")
    rows = [store.database.read(lambda t, name=name: t.rows(f"SELECT * FROM {name}")) for name in tables]
    return rows, {key: bytes(store.blobs.get(key)) for key in store.blobs.list()}


def test_the_row_of_a_damaged_chunk_points_to_another_copy_afterwards(shop):
    location = copy_to_another_pack(shop, DATA[1])
    spoil(shop.store, DATA[1])
    scrubbed(shop.context)
    outcome = repaired(shop.context)
    assert (outcome.wanted, outcome.salvaged.chunks_saved, outcome.lost) == (1, 1, 0)
    assert outcome.is_done
    assert row_of(shop.store, DATA[1]).pack_name == location.pack_id
    assert damaged(shop.store) == set()
    is_whole(shop)


def test_a_row_that_points_to_no_envelope_is_marked_and_its_chunk_found(shop):
    copy_to_another_pack(shop, DATA[1])
    spoil(shop.store, DATA[1], 0)
    outcome = repaired(shop.context)
    assert (outcome.marked, outcome.salvaged.chunks_saved, outcome.lost) == (1, 1, 0)
    is_whole(shop)


def test_a_chunk_without_another_copy_is_marked_and_reported(shop):
    spoil(shop.store, DATA[1], 0)
    outcome = repaired(shop.context)
    assert (outcome.marked, outcome.wanted, outcome.lost) == (1, 1, 1)
    assert not outcome.is_done
    assert damaged(shop.store) == {sha(DATA[1])}
    assert [(point.recovery_point_arn, point.names) for point in outcome.damage.points] == [(shop.point, ["object 1"])]
    shop.api.backup({"object 1": DATA[1]}, resource=new_resource())
    is_whole(shop)


def test_a_copy_that_is_damaged_itself_is_not_used(shop):
    location = copy_to_another_pack(shop, DATA[1])
    spoil(shop.store, DATA[1])
    blob(shop.store, location.pack_id)[location.offset + location.length - 1] ^= 1
    scrubbed(shop.context)
    before = row_of(shop.store, DATA[1])
    assert repaired(shop.context).lost == 1
    assert row_of(shop.store, DATA[1]) == before


def test_a_chunk_without_a_row_gets_one(shop):
    lose_row(shop, DATA[1])
    outcome = repaired(shop.context)
    assert (outcome.wanted, outcome.salvaged.chunks_saved) == (1, 1)
    is_whole(shop)


def test_chunks_of_a_missing_pack_are_sound_again_once_its_disk_is_back(shop):
    name = row_of(shop.store, DATA[0]).pack_name
    away = shop.store.blobs._blobs.pop(pack_key(name))
    assert repaired(shop.context).lost == 3
    shop.store.blobs._blobs[pack_key(name)] = away
    assert repaired(shop.context).lost == 0
    assert damaged(shop.store) == set()
    is_whole(shop)


def test_an_unknown_pack_is_adopted_whole(shop):
    lose_pack(shop, DATA[0])
    outcome = repaired(shop.context)
    assert (outcome.wanted, outcome.salvaged.chunks_saved, outcome.salvaged.packs_adopted) == (3, 3, 1)
    is_whole(shop)
    collect_all(shop.context, quarantine_ms=0)
    is_whole(shop)


def test_unneeded_chunks_of_an_unknown_pack_are_left_to_garbage_collection(shop):
    location = shop.context.store.put(Payload(noise(50)), shop.context.keys.sealing(1).key)
    assert repaired(shop.context).salvaged.packs_adopted == 0, "its writer is alive"
    shop.restart()
    outcome = repaired(shop.context)
    assert (outcome.salvaged.packs_adopted, outcome.salvaged.chunks_adopted) == (1, 1)
    is_whole(shop)
    for _ in range(3):
        collect_all(shop.context, quarantine_ms=0)
    assert location.pack_id not in shop.store.pack_names()
    is_whole(shop)


@pytest.mark.parametrize("size", [1, PACK_HEADER_BYTES])
def test_an_empty_unknown_pack_is_left_to_garbage_collection(shop, size):
    name = shop.store.new_id()
    shop.store.blobs.put(pack_key(name), encode_header(name)[:size])
    assert repaired(shop.context).salvaged.packs_adopted == 1
    for _ in range(3):
        collect_all(shop.context, quarantine_ms=0)
    assert name not in shop.store.pack_names()


def test_an_empty_file_counts_as_a_pack_that_is_being_created(shop):
    name = shop.store.new_id()
    shop.store.blobs.put(pack_key(name), b"")
    assert repaired(shop.context) == RepairResult()
    assert name in shop.store.pack_names()


@pytest.mark.parametrize("wanted", [False, True])
def test_an_unknown_pack_with_an_unknown_key_is_left_alone(shop, wanted):
    """Only its wanted chunks are copied."""
    name = lose_pack(shop, DATA[0])
    if not wanted:
        shop.api.delete_point(shop.point)
    before = bytes(blob(shop.store, name))
    key_id = bytes(16)
    envelope = bytearray(before[PACK_HEADER_BYTES:])
    header = EnvelopeHeader.decode(envelope)
    foreign = header._replace(key_id=key_id).encode() + bytes(header.sealed_bytes)
    blob(shop.store, name).extend(foreign)
    outcome = repaired(shop.context)
    assert outcome.salvaged.packs_adopted == 0
    assert [found.kind.name for found in outcome.left] == ["pack-unknown"]
    assert outcome.salvaged.chunks_saved == (3 if wanted else 0)
    assert bytes(blob(shop.store, name)) == before + foreign
    if wanted:
        assert shop.api.restored(shop.point) == shop.contents
        assert row_of(shop.store, DATA[0]).pack_name != name
    assert repaired(shop.context).salvaged.chunks_saved == 0


@pytest.mark.parametrize("where", ["pack", "envelope"])
def test_an_unknown_pack_of_a_later_version_is_left_alone(shop, where):
    """If the catalog knew the pack, it would be collected: this version sees nothing in it that is needed."""
    name = shop.store.new_id()
    pack = bytearray(encode_header(name))
    if where == "pack":
        pack[4] = 2
        pack[28:32] = CHECK.pack(zlib.crc32(pack[:28]))
    else:
        row = row_of(shop.store, DATA[0])
        later = bytearray(blob(shop.store, row.pack_name)[row.pack_offset :][: row.sealed_length])
        later[4] = 2
        later[92:96] = CHECK.pack(zlib.crc32(later[:92]))
        pack += later
    shop.store.blobs.put(pack_key(name), bytes(pack))
    outcome = repaired(shop.context)
    assert outcome.salvaged == SalvageResult()
    assert [found.kind.name for found in outcome.left] == ["pack-unknown"]
    assert "version" in outcome.left[0].examples[0]
    assert shop.store.blobs.get(pack_key(name)) == pack


@pytest.mark.parametrize("state", ["retired", "dropped"])
def test_chunks_of_a_retired_or_dropped_pack_are_copied(shop, state):
    """The only sound copy is in a pack that accepts no more rows."""
    name = row_of(shop.store, DATA[0]).pack_name
    run(shop, "DELETE FROM chunk WHERE pack_number = (SELECT pack_number FROM pack WHERE name = :name)", name=name)
    run(shop, "UPDATE pack SET retired_ms = 1 WHERE name = :name", name=name)
    if state == "dropped":
        run(shop, "UPDATE pack SET dropped_epoch = 1 WHERE name = :name", name=name)
    assert repaired(shop.context).salvaged.chunks_saved == 3
    shop.close_packs()
    for _ in range(2):
        collect_all(shop.context, quarantine_ms=0)
    assert name not in shop.store.pack_names()
    is_whole(shop)


def test_a_torn_tail_is_cut(shop):
    name = row_of(shop.store, DATA[5]).pack_name
    before = bytes(blob(shop.store, name))
    blob(shop.store, name).extend(before[PACK_HEADER_BYTES:][:150])
    outcome = repaired(shop.context)
    assert (outcome.salvaged.tails_cut, outcome.salvaged.tail_bytes) == (1, 150)
    assert bytes(blob(shop.store, name)) == before


def test_a_damaged_envelope_at_the_end_is_no_torn_tail(shop):
    name = row_of(shop.store, DATA[5]).pack_name
    spoil(shop.store, DATA[5], 0)
    before = bytes(blob(shop.store, name))
    assert repaired(shop.context).salvaged.tails_cut == 0
    assert bytes(blob(shop.store, name)) == before


def test_bytes_that_were_never_flushed_are_flushed_before_a_row_points_there(shop):
    """A process died. Bytes that it wrote but did not flush can be read until a power cut."""
    lost = noise(50)
    shop.process.blobs.fail("sync")
    job = shop.api.start_job(resource=new_resource())
    with pytest.raises(Exception, match="storage"):
        shop.api.put(job, "never acknowledged", lost)
    assert repaired(shop.context).salvaged.chunks_adopted == 1
    shop.store.crash(0.0)
    shop.process = Process(shop.store)
    shop.api._call = shop.process
    assert audit.problems(shop.context, shop.store.database) == []


def test_a_dry_run_changes_nothing_and_reports_what_it_would_do(shop):
    location = copy_to_another_pack(shop, DATA[4])
    spoil(shop.store, DATA[4], 0)
    lose_pack(shop, DATA[0])
    blob(shop.store, location.pack_id).extend(b"torn")
    before = everything(shop.store)
    dry = repaired(shop.context, dry_run=True)
    assert everything(shop.store) == before
    wet = repaired(shop.context)
    assert (wet.wanted, wet.salvaged.chunks_saved, wet.salvaged.tails_cut, wet.lost) == (4, 4, 1, 0)
    assert (dry.marked, dry.wanted, dry.lost, dry.salvaged) == (wet.marked, wet.wanted, wet.lost, wet.salvaged)
    is_whole(shop)


def test_a_missing_key_is_reported_and_nothing_is_changed(shop, monkeypatch):
    lose_pack(shop, DATA[0])
    process = Process(shop.store)
    monkeypatch.setattr(shop.store.keyring, "_key", shop.store.keyring._key.__class__("another", bytes(32)))
    before = everything(shop.store)
    outcome = repaired(process.context)
    assert everything(shop.store) == before
    assert (outcome.lost, outcome.salvaged.packs_adopted) == (3, 0)
    assert {"pack-unknown", "no-key"} <= {found.kind.name for found in outcome.left}


def test_each_vault_gets_its_own_rows(shop):
    """An unknown pack holds the same bytes of two vaults, and other bytes."""
    shop.api.new_vault()
    other = Api(shop.process, None, clock=shop.store.clock)
    other.vault = shop.api.vault
    theirs = other.backup({"theirs": noise(60)}, resource=new_resource())
    shop.api.vault = "Default"
    mine = shop.api.backup({"mine": noise(60)}, resource=new_resource())
    shop.close_packs()
    run(shop, "DELETE FROM chunk WHERE digest = :digest", digest=sha(noise(60)))
    assert repaired(shop.context).salvaged.chunks_saved == 2
    assert shop.api.restored(mine) == {"mine": noise(60)}
    assert other.restored(theirs) == {"theirs": noise(60)}
    is_whole(shop)


def test_a_pack_that_is_collected_during_its_adoption_gets_no_row(shop):
    """Meanwhile a late writer gives it a row, a collection empties and deletes it, and the next one forgets it."""
    location = shop.context.store.put(Payload(noise(50)), shop.context.keys.sealing(1).key)
    shop.restart()
    other = Process(shop.store)
    insert = "INSERT INTO pack (name, open, created_ms) VALUES (:name, 0, 0)"

    def collect():
        shop.process.database.on_write(None)
        run(shop, insert, name=location.pack_id)
        for _ in range(3):
            collect_all(other.context, quarantine_ms=0)
        assert location.pack_id not in shop.store.pack_names()

    shop.process.database.on_write(collect)
    assert repaired(shop.context).salvaged.packs_adopted == 0
    is_whole(shop)


@pytest.mark.parametrize("request_", [None, *REQUESTS], ids=lambda request: request.__name__ if request else "nothing")
def test_requests_and_collections_between_any_two_steps(request_):
    """Without a quarantine, the collector may remove at any moment whatever the repair does not protect."""
    for count in itertools.count(0, 3):
        scene = broken_scene()
        process = Process(scene.store)
        steps = repair(process.context, RepairResult())
        taken = list(itertools.islice(steps, count))
        if request_ and not damaged(scene.store):
            request_(scene)
        list(steps)
        collect_all(scene.collector.context, quarantine_ms=0)
        to_end(repair(process.context, RepairResult()))
        scene.check()
        if len(taken) < count:
            break
    scene.collect_the_rest()


def test_a_pack_that_another_process_has_locked_is_left_for_the_next_repair(shop, monkeypatch):
    """With a row of its own but none for its chunks, the pack would be collected."""
    name = lose_pack(shop, DATA[0])
    with monkeypatch.context() as patch:
        patch.setattr(shop.process.blobs, "cut", lambda key, size: False)
        outcome = repaired(shop.context)
    assert (outcome.lost, outcome.salvaged.packs_adopted) == (3, 0)
    assert [found.kind.name for found in outcome.left] == ["chunk-missing", "unreadable"]
    for _ in range(3):
        collect_all(shop.context, quarantine_ms=0)
    assert name in shop.store.pack_names()
    assert repaired(shop.context).lost == 0
    is_whole(shop)


def test_a_repair_that_dies_has_adopted_all_needed_chunks_of_a_pack(monkeypatch):
    """Collections without quarantine follow at once. The other chunks of the pack are adopted one by one."""
    monkeypatch.setattr(repairing, "CHUNKS_PER_BATCH", 1)
    for count in itertools.count(1):
        scene = Shop(pack_bytes=10_000)
        scene.api.backup({"garbage": noise(70)}, resource=new_resource())
        scene.close_packs()
        run(scene, "DELETE FROM object WHERE name = :name", name=b"garbage")
        lose_pack(scene, DATA[0])
        steps = repair(scene.context, RepairResult())
        taken = list(itertools.islice(steps, count))
        steps.close()
        for _ in range(3):
            collect_all(scene.context, quarantine_ms=0)
        assert repaired(scene.context).lost == 0
        assert scene.api.restored(scene.point) == scene.contents
        if len(taken) < count:
            break


@pytest.mark.parametrize("is_open", [False, True])
def test_a_missing_pack_is_no_finding_once_all_its_chunks_are_saved(shop, is_open):
    """Neither of a repair nor of a check, before or after a collection."""
    name, new = row_of(shop.store, DATA[0]).pack_name, shop.store.new_id()
    blobs = shop.store.blobs._blobs
    blobs[pack_key(new)] = bytearray(encode_header(new)) + blobs.pop(pack_key(name))[PACK_HEADER_BYTES:]
    if is_open:
        run(shop, "UPDATE pack SET open = 1 WHERE name = :name", name=name)
    outcome = repaired(shop.context)
    assert (outcome.lost, outcome.left, outcome.is_done) == (0, [], True)
    is_whole(shop)
    collect_all(shop.context, quarantine_ms=0)
    is_whole(shop)
    assert repaired(shop.context) == RepairResult()
