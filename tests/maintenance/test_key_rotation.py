"""Rotation of master keys and data keys on a real store, while other servers use it."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import shutil
import threading

import pytest

from cryostore.catalog.processes import nodes
from cryostore.catalog.processes.nodes import NodeReport
from cryostore.catalog.rows import keys, records
from cryostore.catalog.rows.keys import WRAPPED
from cryostore.catalog.rows.records import RecordKey
from cryostore.chunks.keyring.sources import FileKeyring
from cryostore.core.errors import ConfigurationError
from cryostore.core.ids import random_id
from cryostore.maintenance import key_rotation
from cryostore.maintenance.key_rotation import (
    RotationResult,
    RotationSupersededError,
    begin_rotation,
    forget_master_key,
    rotate_master_key,
    rotate_vault_key,
)
from cryostore.maintenance.key_uses import RECORD, count_key_uses
from cryostore.maintenance.rebuild.run import RebuildResult
from cryostore.maintenance.rebuild.stores import rebuild_directory
from cryostore.model.errors import ResourceNotFoundException, ServiceUnavailableException
from cryostore.model.vaults import CreateBackupVault, DeleteBackupVault
from cryostore.service import CallAs
from cryostore.service.opening.data_directory import existing_keyring
from cryostore.service.recording import write_due_records
from cryostore.service.vault_keys import SEALING_KEY_CACHE_SECONDS
from support.faults.faulty_database import FaultyDatabase
from support.requests.api import Api
from support.stores.in_process import ROOT, opened
from support.stores.integrity import problems
from support.stores.keyrings import BOTH, OLD_ALONE, printing, write_keyring

DATA = b"what is in the backup"


def rotated(store):
    """Rotate, without waiting for nodes to report, and return the result."""
    outcome = RotationResult()
    for _ in rotate_master_key(store.service.context, outcome, wait_seconds=0):
        pass
    return outcome


def keyring_of(store):
    """Return the document in the keyring file."""
    return FileKeyring(store.data_dir / "keyring.json").document()


def only_user(store):
    """Return the id of the only master key in use."""
    found = count_key_uses(store.service.context)
    (key_id,) = found.by_key
    assert found.due == 0
    return key_id


def count_rows(store):
    """Count the wrapped rows by table, and the records."""
    database = store.service.context.database
    counts = {
        table: database.read(lambda t, table=table: t.row(f"SELECT count(*) FROM {table}")[0]) for table in WRAPPED
    }
    return counts | {RECORD: len(database.read(lambda t: records.page(t, RecordKey("commit", 2**63 - 1), 999)))}


def packs(store):
    """Return the bytes of each pack, by name."""
    return {path.name: path.read_bytes() for path in (store.data_dir / "packs").rglob("*.pack")}


@pytest.fixture
def store(tmp_path):
    """A new store."""
    with opened(tmp_path / "data") as store:
        yield store


@pytest.fixture
def filled(store):
    """Two vaults with a recovery point each. Returns a check that all of it can be restored."""
    apis = [store.api(), store.api()]
    apis[1].new_vault()
    arns = [api.backup({"name": DATA, "number": b"%d" % number}) for number, api in enumerate(apis)]

    def check():
        for number, (api, arn) in enumerate(zip(apis, arns, strict=True)):
            assert api.restored(arn) == {"name": DATA, "number": b"%d" % number}
        assert problems(store.data_dir) == []

    return check


def test_a_rotation_wraps_everything_again_and_touches_no_data(store, filled):
    before, old, bytes_before = count_rows(store), only_user(store), packs(store)
    outcome = rotated(store)
    assert outcome.is_finished
    assert outcome.added
    assert outcome.rewrapped == before
    assert outcome.unreadable == {}
    assert only_user(store) == outcome.key_id == keyring_of(store).active.key_id != old
    assert keyring_of(store).keys.keys() == {old, outcome.key_id}
    assert count_rows(store) == before
    assert packs(store) == bytes_before
    filled()
    store.reopen()
    filled()


def test_nothing_needs_the_old_key_after_a_rotation(store, filled):
    old = only_user(store)
    rotated(store)
    forget_master_key(store.service.context, old)
    assert old not in keyring_of(store).keys
    assert old not in (store.data_dir / "keyring.json").read_text()
    store.reopen()
    filled()
    (store.data_dir / "credentials").unlink()
    store.reopen()
    filled()


def test_each_rotation_makes_a_new_key(store, filled):
    seen = [only_user(store), *(rotated(store).key_id for _ in range(3))]
    assert len(set(seen)) == 4
    assert keyring_of(store).keys.keys() == set(seen)
    filled()


def test_another_server_continues_and_wraps_with_the_new_key(store, filled):
    """That server has the old keyring in memory, and has opened no key yet."""
    service = store.open()
    outcome = rotated(store)
    service.call(CreateBackupVault(backup_vault_name="made-there"), ROOT)
    store.service, mine = service, store.service
    filled()
    assert only_user(store) == outcome.key_id
    store.service = mine
    service.close()


def test_a_server_with_an_old_keyring_makes_no_vault(store, filled, tmp_path):
    """Its copy of the keyring lacks the new key. It refuses, because a key it wraps with may be removed."""
    shutil.copy(store.data_dir / "keyring.json", tmp_path / "copy")
    service = store.open()
    service.context.keys.keyring.source = FileKeyring(tmp_path / "copy")
    old = only_user(store)
    outcome = rotated(store)
    with pytest.raises(ServiceUnavailableException, match="lacks master key"):
        service.call(CreateBackupVault(backup_vault_name="made-there"), ROOT)
    forget_master_key(store.service.context, old)
    assert only_user(store) == outcome.key_id
    service.close()


def test_the_next_rotation_finishes_one_interrupted_anywhere(store, filled):
    """The store can be opened in between, and the next rotation uses the same new key."""
    steps = len(list(rotate_master_key(store.service.context, RotationResult())))
    for stop in range(steps):
        outcome = RotationResult()
        going = rotate_master_key(store.service.context, outcome)
        for _ in range(stop + 1):
            next(going)
        going.close()
        store.reopen()
        filled()
        known, found = len(keyring_of(store).keys), count_key_uses(store.service.context)
        finished = rotated(store)
        assert finished.is_finished
        assert finished.key_id == keyring_of(store).active.key_id
        left = bool(found.by_key.keys() - {outcome.key_id})
        assert left or stop >= steps // 2
        assert (finished.key_id == outcome.key_id) is left
        assert finished.added is not left
        assert len(keyring_of(store).keys) == known + finished.added
        filled()


def test_a_key_is_durable_before_anything_is_wrapped_with_it(store, filled, monkeypatch):
    """Also a key of an earlier rotation that failed before its keyring file was durable."""
    database, steps = FaultyDatabase(store.service.context.database), []
    database.on_write(lambda: steps.append("write"))
    monkeypatch.setattr(FileKeyring, "sync", lambda _: steps.append("sync"))
    context = dataclasses.replace(store.service.context, database=database)
    FileKeyring(store.data_dir / "keyring.json").add(random_id)
    for _ in rotate_master_key(context, RotationResult()):
        pass
    assert steps[:3] == ["write", "sync", "write"], "the claim comes first"


def report(store, *, name, keys, trouble=""):
    """Write the report of a node that holds these keys."""
    row = NodeReport(name, frozenset(keys), trouble, store.clock())
    store.service.context.database.write(lambda transaction: nodes.put(transaction, row))


def test_a_key_is_used_only_once_all_live_nodes_hold_it(store, filled):
    old = only_user(store)
    report(store, name="a/1", keys=[old])
    report(store, name="b/1", keys=[old])
    first = rotated(store)
    assert (first.lacking, first.added, first.rewrapped) == (["a/1", "b/1"], True, {})
    assert not first.is_finished
    assert only_user(store) == old, "the key is in the keyring, and not in use"
    report(store, name="a/1", keys=[old, first.key_id])
    second = rotated(store)
    assert (second.lacking, second.key_id, second.added) == (["b/1"], first.key_id, False)
    assert only_user(store) == old
    report(store, name="b/1", keys=[old, first.key_id])
    third = rotated(store)
    assert third.is_finished
    assert third.key_id == first.key_id == only_user(store)
    filled()


def test_a_rotation_waits_for_a_live_node_to_report_the_key(store, filled):
    old, outcome = only_user(store), RotationResult()
    report(store, name="a/1", keys=[old])
    rotation = rotate_master_key(store.service.context, outcome, wait_seconds=60)
    assert next(rotation).stage == "wait for nodes"
    report(store, name="a/1", keys=[old, outcome.key_id])
    for _ in rotation:
        pass
    assert outcome.is_finished
    filled()


def test_a_dead_node_does_not_delay_a_rotation(store, filled):
    """Neither a node whose last report is old, nor one whose report comes from a clock that was ahead."""
    report(store, name="gone/1", keys=[])
    store.clock.advance(2 * nodes.LIVE_MS)
    assert rotated(store).is_finished
    store.maintain()
    report(store, name="ahead/1", keys=[])
    store.clock.advance(-2 * nodes.LIVE_MS)
    assert rotated(store).is_finished
    store.maintain()
    assert store.service.context.database.read(lambda t: t.rows("SELECT name FROM node")) == []
    filled()


def test_a_node_that_reports_after_the_wait_delays_the_rotation(store, monkeypatch):
    old = only_user(store)
    really = key_rotation.begin_rotation

    def begin_rotation(context, key, outcome):
        report(store, name="late/1", keys=[old])
        really(context, key, outcome)

    monkeypatch.setattr(key_rotation, "begin_rotation", begin_rotation)
    assert rotated(store).lacking == ["late/1"]
    assert only_user(store) == old


def test_a_rotation_uses_a_key_that_was_added_by_hand(store, filled):
    key = FileKeyring(store.data_dir / "keyring.json").add(random_id)
    store.api().new_vault()
    assert only_user(store) != key.key_id
    outcome = rotated(store)
    assert (outcome.key_id, outcome.added) == (key.key_id, False)
    assert only_user(store) == key.key_id


def test_of_two_rotations_the_later_one_wins(store, filled):
    first = rotate_master_key(store.service.context, RotationResult())
    next(first)
    next(first)  # now its key is in use
    second = FileKeyring(store.data_dir / "keyring.json").add(random_id)
    begin_rotation(store.service.context, second, RotationResult())
    with pytest.raises(RotationSupersededError):
        for _ in first:
            pass
    filled()
    outcome = rotated(store)
    assert outcome.is_finished
    assert only_user(store) == second.key_id
    filled()


def test_rows_that_change_meanwhile_are_not_rewrapped(store, filled):
    """A vault that is deleted while its keys are wrapped again stays deleted."""
    api = store.api()
    name = api.new_vault()
    real = keys.rewrap

    def rewrap(transaction, row, wrapped):
        transaction.run("DELETE FROM vault_key WHERE vault_id = (SELECT vault_id FROM vault WHERE name = :n)", n=name)
        return real(transaction, row, wrapped)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_rotation.keys, "rewrap", rewrap)
        outcome = rotated(store)
    assert outcome.is_finished
    assert outcome.rewrapped["vault_key"] == 2
    filled()


def test_rows_that_no_key_opens_stay_and_are_reported(store, filled):
    database = store.service.context.database
    row = database.read(lambda t: keys.wrapped_page(t, "vault_key", None, 9))[-1]
    lost = BOTH.active.wrap(b"x" * 32, b"")
    database.write(lambda t: keys.rewrap(t, row, lost))
    for number in range(2):  # later rotations make a new key all the same
        outcome = rotated(store)
        assert outcome.added
        assert not outcome.is_finished
        assert (outcome.unreadable, outcome.left) == ({"vault_key": 1}, {"new": 1})
        assert len(keyring_of(store).keys) == number + 2
    damaged = database.read(lambda t: keys.wrapped_page(t, "vault_key", None, 9))[-1]
    database.write(lambda t: keys.rewrap(t, damaged, b"damaged"))
    old = next(name for name in keyring_of(store).keys if name != outcome.key_id)
    with pytest.raises(ConfigurationError, match="or may be: 1 vault_key"):
        forget_master_key(store.service.context, old)


def test_a_lost_catalog_is_rebuilt_with_the_new_key_alone(store, filled):
    """A rotation wraps records again, and the wrapped keys inside them."""
    old = only_user(store)
    rotate_vault_key(store.service.context, "Default")
    going = rotate_master_key(store.service.context, RotationResult())
    next(going)
    next(going)  # the new key wraps a record; inside it are keys that the old key wraps
    store.service.context.database.write(lambda t: key_rotation.mark_vault_changed(t, 1))
    assert write_due_records(store.service.context)
    assert len(count_key_uses(store.service.context).by_key) == 2
    for _ in going:
        pass
    forget_master_key(store.service.context, old)
    store.service.close()
    for path in store.data_dir.glob("catalog.sqlite*"):
        path.unlink()
    outcome = RebuildResult()
    for _ in rebuild_directory(store.data_dir, existing_keyring(store.data_dir), outcome, clock=store.clock):
        pass
    assert outcome.losses == []
    store.service = store.open()
    filled()


# --- forgetting ------------------------------------------------------------------------------------------------------


def test_a_key_that_is_needed_is_not_forgotten(store, filled):
    context = store.service.context
    active = only_user(store)
    with pytest.raises(ConfigurationError, match="is the active key"):
        forget_master_key(context, active)
    with pytest.raises(ConfigurationError, match="has no master key nobody's"):
        forget_master_key(context, "nobody's")
    FileKeyring(store.data_dir / "keyring.json").add(random_id)
    with pytest.raises(ConfigurationError, match="is needed") as caught:
        forget_master_key(context, active)
    assert "1 access_key, 3 record, 1 secret, 2 vault_key" in caught.value.message
    assert active in keyring_of(store).keys


def test_a_key_is_not_forgotten_while_a_record_may_need_it(store, filled, monkeypatch):
    context = store.service.context
    old = only_user(store)
    rotated(store)
    monkeypatch.setattr(key_rotation, "update_record", lambda *_: None)  # as if another process had not written it yet
    context.database.write(lambda t: key_rotation.mark_vault_changed(t, 1))
    with pytest.raises(ConfigurationError, match="1 records to be written"):
        forget_master_key(context, old)
    monkeypatch.undo()
    forget_master_key(context, old)


# --- keyrings that Cryostore cannot edit -----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["env", "command"])
def test_a_keyring_that_cryostore_cannot_edit_is_rotated_in_two_steps(tmp_path, monkeypatch, scheme):
    document = tmp_path / "document"
    place = "env:CRYOSTORE_TEST_KEYS" if scheme == "env" else f"command:{shlex.join(printing(document))}"

    def provide(content):
        write_keyring(document, content)
        monkeypatch.setenv("CRYOSTORE_TEST_KEYS", content.encode().decode())

    provide(OLD_ALONE)
    with opened(tmp_path / "data", keyring=place) as store:
        api = store.api()
        arn = api.backup({"name": DATA})
        with pytest.raises(ConfigurationError, match="everything is wrapped with master key old") as caught:
            rotated(store)
        assert "--with-new-key" in caught.value.hint
        provide(BOTH)
        store.reopen()
        outcome = rotated(store)
        assert (outcome.key_id, outcome.added, outcome.is_finished) == ("new", False, True)
        assert only_user(store) == "new"
        with pytest.raises(ConfigurationError, match="cannot be changed from here"):
            forget_master_key(store.service.context, "old")
        provide(BOTH.without("old"))
        store.reopen()
        assert api.restored(arn) == {"name": DATA}
    assert not (tmp_path / "data" / "keyring.json").exists()


# --- data keys -------------------------------------------------------------------------------------------------------


def test_a_vault_gets_a_new_data_key_for_new_data(store, filled):
    api, context = store.api(), store.service.context
    now = [context.keys._now()]
    context.keys._now = lambda: now[0]
    arn = api.backup({"old": DATA + b"old"})
    assert rotate_vault_key(context, "Default") == 2
    now[0] += SEALING_KEY_CACHE_SECONDS
    later = api.backup({"new": DATA + b"new", "again": DATA + b"old"})
    chunk_keys = context.database.read(
        lambda t: t.rows("SELECT key_number, count(*) FROM chunk WHERE vault_id = 1 GROUP BY key_number")
    )
    assert [count for _, count in chunk_keys] == [3, 1]  # equal bytes are stored once, whichever key sealed them
    for _ in range(2):
        assert api.restored(arn) == {"old": DATA + b"old"}
        assert api.restored(later) == {"old": DATA + b"old", "new": DATA + b"new", "again": DATA + b"old"}
        filled()
        store.reopen()
    assert count_key_uses(store.service.context).due == 0
    rotated(store)
    filled()


def test_a_missing_vault_gets_no_key(store):
    with pytest.raises(ResourceNotFoundException):
        rotate_vault_key(store.service.context, "nowhere")


def test_the_data_keys_of_a_vault_rotate_and_are_deleted_with_it(store):
    api, context = store.api(), store.service.context
    name = api.new_vault()
    for number in range(2, 5):
        assert rotate_vault_key(context, name) == number
    rotated(store)
    api.call(DeleteBackupVault(backup_vault_name=name))
    assert count_rows(store) == {"secret": 1, "access_key": 1, "vault_key": 1, RECORD: 2}


# --- concurrent uploads ----------------------------------------------------------------------------------------------


class Uploads:
    """Threads that back up, restore and make vaults through two servers until they are stopped."""

    def __init__(self, store):
        self.data_dir = store.data_dir
        self.services = [store.open() for _ in range(2)]
        self.done = threading.Event()
        self.failures = []
        self.points = {}
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(4)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        try:
            for turn in itertools.takewhile(lambda _: not self.done.is_set(), itertools.count()):
                self.back_up(number, turn)
        except BaseException as error:  # noqa: BLE001 - the main thread looks at it
            self.failures.append(error)

    def back_up(self, number, turn):
        api = Api(CallAs(self.services[number % 2], ROOT), self.data_dir)
        if turn % 3 == 1:
            api.vault = f"vault-of-{number}-{turn}"
            api.call(CreateBackupVault(backup_vault_name=api.vault))
        content = {f"{number}": b"%d %d" % (number, turn), "same": DATA}
        arn = api.backup(content)
        assert api.restored(arn) == content
        self.points[arn] = content

    def end(self):
        self.done.set()
        for thread in self.threads:
            thread.join()
        for service in self.services:
            service.close()


def old_keys(store):
    """Return the ids of the keys in the keyring that are not active."""
    document = keyring_of(store)
    return set(document.keys) - {document.active.key_id}


def test_rotations_during_uploads(store):
    """Servers write, read and make vaults while keys rotate repeatedly. Nothing fails and nothing is lost."""
    uploads = Uploads(store)
    for turn in range(8):
        assert not rotated(store).unreadable
        rotate_vault_key(store.service.context, "Default")
        for key_id in old_keys(store) if turn % 4 == 3 else ():
            forget_if_unused(store, key_id)
    uploads.end()
    assert uploads.failures == []
    assert len(uploads.points) >= 4
    rotated(store)
    for key_id in old_keys(store):
        forget_master_key(store.service.context, key_id)
    store.reopen()
    api = store.api()
    assert {arn: api.restored(arn) for arn in uploads.points} == uploads.points
    assert problems(store.data_dir) == []


def forget_if_unused(store, key_id):
    """Remove a master key unless it is still needed: a record may be due at any moment, because servers make vaults."""
    try:
        forget_master_key(store.service.context, key_id)
    except ConfigurationError as error:
        assert "is needed, or may be" in error.message
