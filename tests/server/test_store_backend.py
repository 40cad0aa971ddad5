"""The backend on a real store: opening, periodic duties, metrics, and outages."""

from __future__ import annotations

import os
import shutil
import threading

import obstore
import pytest

from cryostore.catalog.rows import keys
from cryostore.chunks.keyring import open_keyring, parse_keyring_uri, unwrap
from cryostore.core.errors import ConfigurationError, KeyMissingError, StorageUnavailableError
from cryostore.core.ids import random_id
from cryostore.core.limits import Limits
from cryostore.core.time import DAY_MS, FrozenClock, wall_clock
from cryostore.core.traffic import BUCKETS
from cryostore.maintenance.key_uses import wrapped_pages
from cryostore.maintenance.nodes import Node, live_nodes
from cryostore.options.configuration import Configuration
from cryostore.server.monitoring.metrics import SharedMetrics, Slot, create_shared_metrics, private_meter
from cryostore.server.store_backend import STORAGE_COUNTERS, StoreBackend, open_store_backend
from cryostore.service.settings import Settings
from cryostore.service.vault_keys import vault_key_context
from support.stores.in_process import opened
from support.stores.keyrings import BOTH, write_keyring
from support.stores.shared_store import ON_PATHS, ON_SERVICES, SharedStore, missing_services, opened_shared, prepared


def test_a_server_scrubs_periodically_and_logs_the_damage(tmp_path, caplog):
    with opened(tmp_path / "data") as store:
        store.api().backup({"a": b"bytes" * 100})
        service = StoreBackend(store.service)
        (pack,) = tmp_path.rglob("*.pack")
        data = bytearray(pack.read_bytes())
        data[-1] ^= 1
        pack.write_bytes(data)
        service.maintain()
        store.clock.advance(DAY_MS)
        service.maintain()
    (line,) = caplog.messages
    assert line.startswith("scrub: 1 chunks found damaged")


def test_a_server_notices_that_its_catalog_is_away_and_back(tmp_path, monkeypatch):
    with opened(tmp_path / "data") as store:
        service = StoreBackend(store.service)
        meter = private_meter()
        shown = Slot(meter._numbers)

        def away(_):
            raise StorageUnavailableError("the catalog is away")

        def seen():
            service.publish(meter)
            return shown.value("store_away")

        service.recover()
        assert seen() == 0
        with monkeypatch.context() as patched:
            patched.setattr(store.service.context.database, "read", away)
            with pytest.raises(StorageUnavailableError):
                service.recover()
            assert seen() == 1
        service.recover()
        assert seen() == 0
        store.service.outdated = True
        assert seen() == 1


def test_a_server_notices_that_its_keyring_lacks_the_key_in_use_and_has_it_again(tmp_path):
    with opened(tmp_path / "data") as store:
        service = StoreBackend(store.service)
        meter = private_meter()
        shown = Slot(meter._numbers)
        path = store.data_dir / "keyring.json"
        kept = path.read_bytes()
        write_keyring(path, BOTH)
        with pytest.raises(KeyMissingError):
            service.recover()
        service.publish(meter)
        assert (shown.value("key_away"), shown.value("store_away")) == (1, 0)
        path.write_bytes(kept)
        service.recover()
        service.publish(meter)
        assert shown.value("key_away") == 0


@pytest.mark.parametrize("kind", [ON_PATHS, ON_SERVICES])
def test_a_node_that_alone_cannot_use_the_blobs_leaves_the_balancer(tmp_path, kind):
    """A node compares itself with the others; if none can use the blobs, none leaves."""
    if kind == ON_SERVICES and missing_services():
        pytest.skip(missing_services())
    away = set()

    def node(store, name):
        def try_blobs():
            if name in away:
                raise StorageUnavailableError(f"refused: {name}")
            store.service.try_blobs()

        return Node(store.service.context, try_blobs, name=name)

    def report(*nodes):
        for each in nodes:
            store.clock.advance(1000)
            if each.name in away:
                with pytest.raises(StorageUnavailableError, match="refused"):
                    each.report()
            else:
                each.report()

    with prepared(tmp_path / "store", kind) as place:
        store = SharedStore(place)
        one, two = node(store, "one/1"), node(store, "two/1")
        service, meter = StoreBackend(store.service, one), private_meter()
        report(one, two)
        assert not one.alone
        away.add("one/1")
        report(one)
        assert not one.alone, "what another node reported before is not known to hold still"
        report(two, one)
        assert one.alone
        service.publish(meter)
        assert Slot(meter._numbers).value("blobs_away") == 1
        assert [each.trouble for each in live_nodes(store.service.context)] == ["refused: one/1", ""]
        away.add("two/1")
        report(two, one)
        assert not one.alone
        assert not two.alone
        away.clear()
        report(two, one)
        assert not one.alone
        one.leave()
        assert [each.name for each in live_nodes(store.service.context)] == ["two/1"]
        store.service.close()


def test_a_blob_store_that_does_not_answer_is_reported_at_once(tmp_path):
    """The report does not wait for the client's retries, and does not start a second trial."""
    begun, answers = [], threading.Event()

    def try_blobs():
        begun.append(1)
        assert answers.wait(60)

    with prepared(tmp_path / "store", ON_PATHS) as place:
        store = SharedStore(place)
        one = Node(store.service.context, try_blobs, name="one/1", try_seconds_max=0.01)
        two = Node(store.service.context, store.service.try_blobs, name="two/1")
        for node in (one, two, one):
            store.clock.advance(1000)
            if node is one:
                with pytest.raises(StorageUnavailableError, match="has not answered"):
                    node.report()
            else:
                node.report()
        assert (one.alone, len(begun)) == (True, 1)
        answers.set()
        one._trial.join()
        one.report()
        assert not one.alone
        store.service.close()


def test_a_node_that_lacks_an_older_key_of_some_vault_leaves_the_balancer(tmp_path):
    """For example, a new keyring was not copied to every node. It leaves only if another node can take over."""
    with opened_shared(tmp_path / "store", ON_PATHS) as store:
        context = store.service.context
        shutil.copy(tmp_path / "store" / "keyring.json", tmp_path / "full.json")
        full = open_keyring(parse_keyring_uri(str(tmp_path / "full.json")))
        key = full.add(lambda: "second")
        ((row,),) = wrapped_pages(context, "vault_key")
        secret = unwrap(context.keys.keyring, row.wrapped, vault_key_context(row.label))
        two = SharedStore(store.place._replace(keyring=str(tmp_path / "full.json")))
        one = Node(context, store.service.try_blobs, name="one/1")
        other = Node(two.service.context, two.service.try_blobs, name="two/1")
        service, meter = StoreBackend(store.service, one), private_meter()
        other.report()
        one.report()
        assert one.lacking_key is None, "nothing needs the second key"
        wrapped = key.wrap(secret, vault_key_context(row.label))
        assert context.database.write(lambda transaction: keys.rewrap(transaction, row, wrapped))
        with pytest.raises(KeyMissingError, match="second"):
            one.report()
        service.publish(meter)
        assert (one.lacking_key, Slot(meter._numbers).value("key_away")) == ("second", 1)
        other.report()
        assert other.lacking_key is None
        other.leave()
        one.report()
        assert one.lacking_key is None, "no other node could take its place"
        two.service.close()


def test_traffic_to_catalog_and_blob_store_is_counted_retries_included(tmp_path, monkeypatch, caplog):
    if missing_services():
        pytest.skip(missing_services())
    with prepared(tmp_path / "store", ON_SERVICES) as place:
        store = SharedStore(place)
        service, meter = StoreBackend(store.service), private_meter()
        shown = Slot(meter._numbers)
        store.api().backup({"a": b"1"})
        service.publish(meter)
        assert shown.value("catalog requests") > 0
        assert shown.value("catalog_connections") > 0
        before = {number: shown.value(f"blobs {number}") for number in ("requests", "retries", "failure passing")}
        assert before["requests"] == sum(shown.value(f"blobs {bucket}") for bucket in BUCKETS) > 0
        fail_once = iter([OSError("the connection broke")])
        really = obstore.head

        def head(*arguments):
            for error in fail_once:
                raise error
            return really(*arguments)

        monkeypatch.setattr(obstore, "head", head)
        store.service.try_blobs()
        service.publish(meter)
        after = {number: shown.value(f"blobs {number}") for number in before}
        assert after["retries"] == before["retries"] + 1
        assert after["failure passing"] == before["failure passing"] + 1
        (line,) = [line for line in caplog.messages if "trying again" in line]
        assert line.startswith("blob store: ")
        service.close()


def test_counters_are_published_and_packs_that_others_deleted_are_closed(tmp_path):
    with opened(tmp_path / "store") as store:
        api = store.api()
        service = StoreBackend(store.service)
        arn = api.backup({"a": b"1" * 100, "b": b"1" * 100, "c": b"22"})
        descriptor = create_shared_metrics(1)
        page = SharedMetrics(descriptor)
        service.maintain()
        service.publish(page.meter(0))
        service.publish(page.meter(0))
        (slot,) = page.slots
        totals = {name: slot.value(name) for name in STORAGE_COUNTERS}
        assert totals == {"chunks_stored": 2, "bytes_stored": 102, "chunks_shared": 1, "bytes_shared": 100}
        assert slot.value("recovery_points") == 1
        os.close(descriptor)
        assert service.takes_writes
        api.restored(arn)
        files = store.service._blobs._inner._files._files
        for path in (tmp_path / "store" / "packs").rglob("*.pack"):
            path.unlink()
        assert files
        service.recover()
        assert not files


# --- opening --------------------------------------------------------------------------------------------------------


def opened_and_closed(configuration, clock=wall_clock):
    """The backend, closed, and the context it had."""
    backend = open_store_backend(configuration, clock=clock, new_id=random_id)
    backend.close()
    return backend, backend._service.context


def test_a_directory_uses_the_clock_of_the_server(tmp_path):
    """A data directory has a reserve, too."""
    clock, settings = FrozenClock(), Settings(quarantine_ms=5)
    configuration = Configuration(data_dir=tmp_path / "data", settings=settings, reserve_bytes=4096)
    backend, context = opened_and_closed(configuration, clock)
    assert backend.clock is clock
    assert (context.settings.quarantine_ms, context.settings.reserve_bytes) == (5, 4096)
    assert context.settings.region == "local-1"


def test_a_shared_store_uses_the_clock_and_the_region_of_its_catalog(tmp_path):
    """The region is the one from `cryo init`, and there is no reserve."""
    with prepared(tmp_path, region="eu-1") as place:
        named = {"data_dir": None} | place._asdict()
        settings = Settings(quarantine_ms=5, region="elsewhere")
        limits = Limits(page_items_max=7)
        backend, context = opened_and_closed(Configuration(settings=settings, limits=limits, **named), FrozenClock())
        assert backend.clock is context.clock is wall_clock
        assert (context.settings.quarantine_ms, context.settings.reserve_bytes) == (5, 0)
        assert (context.settings.region, context.limits) == ("eu-1", limits)
        opened_and_closed(Configuration(region="eu-1", **named))
        with pytest.raises(ConfigurationError, match="the store's region is eu-1"):
            open_store_backend(Configuration(region="eu-2", **named), clock=wall_clock, new_id=random_id)
