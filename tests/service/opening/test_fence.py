"""The fence of a superseded catalog: it acknowledges nothing that would be lost, and deletes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.blobstore import BlobStoreTests
from cryostore.chunks.blobs import Appendable, Gathering
from cryostore.chunks.blobs.local import LocalBlobs
from cryostore.chunks.marker import Marker, marker_key, newest_marker, put_marker
from cryostore.core.errors import ConfigurationError, DamagedDataError, StorageUnavailableError, UnknownFormatError
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.rebuild.run import RebuildResult
from cryostore.maintenance.rebuild.stores import _claim as take_claim
from cryostore.maintenance.rebuild.stores import rebuild_shared
from cryostore.model.errors import ServiceUnavailableException
from cryostore.model.jobs import CommitBackupJob
from cryostore.model.vaults import CreateBackupVault
from cryostore.service.opening.fence import fence_blobs
from cryostore.service.opening.shared_store import find_identity
from support.stores.shared_store import SharedStore, opened_shared

COVERS = ("service/opening/shared_store.py",)


class WithoutAppending:
    """Blobs without appends, as in an object store."""

    def __init__(self, inner):
        for method in ("put", "get", "stat", "list", "delete", "close"):
            setattr(self, method, getattr(inner, method))


class WithGathering(WithoutAppending):
    def put_all(self, key, buffers):
        self.put(key, b"".join(buffers))


class TestFencedBlobs(BlobStoreTests):
    """Fenced blobs pass the conformance suite of blob stores."""

    @pytest.fixture
    def store(self, tmp_path):
        self.folder = tmp_path / "blobs"
        store = fence_blobs(LocalBlobs(self.folder), 1)
        yield store
        store.close()

    def peek(self, store, key):
        path = self.folder / key
        return path.read_bytes() if path.is_file() else None

    def plant(self, store, key, data):
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_the_fence_supports_what_its_blobs_support(tmp_path):
    """The fence must not claim more: callers choose how to store by it."""
    inner = LocalBlobs(tmp_path / "blobs")
    assert isinstance(fence_blobs(inner, 1), Appendable)
    plain = fence_blobs(WithoutAppending(inner), 1)
    assert not isinstance(plain, Appendable | Gathering)
    gathering = fence_blobs(WithGathering(inner), 1)
    assert isinstance(gathering, Gathering)
    gathering.put_all("a/b", [b"1", b"2"])
    assert gathering.get("a/b") == b"12"
    plain.forget_deleted()
    fence_blobs(inner, 1).forget_deleted()


@pytest.fixture
def store(tmp_path):
    with opened_shared(tmp_path) as store:
        yield store


def take_over(store, number=2):
    """Take over the blobs as a rebuild does at its start."""
    blobs = LocalBlobs(Path(store.place.blobs))
    marker = newest_marker(blobs)
    assert put_marker(blobs, Marker(marker.store_id, number, "token", marker.region, marker.account_id))


def test_a_superseded_catalog_acknowledges_no_commit_and_no_vault(store):
    """From the time of the marker on, commits and new vaults fail, even before `check_still_current` finds it."""
    api = store.api()
    job = api.start_job()
    api.put(job, "name", b"1")
    take_over(store)
    assert not store.service.outdated
    api.put(job, "more", b"2")
    for operation in (CommitBackupJob(backup_job_id=job), CreateBackupVault(backup_vault_name="new")):
        with pytest.raises(ServiceUnavailableException) as refused:
            api.call(operation)
        assert "taken over" in refused.value.__cause__.message


def collect_again_and_again(context):
    """Collect garbage until a pack without chunks is deleted."""
    for _ in range(3):
        collect_all(context, quarantine_ms=0)


def test_a_superseded_catalog_deletes_no_pack(store):
    api = store.api()
    point = api.backup({"name": b"1" * 1000})
    store.service.context.store.close()  # a pack that no process writes
    api.delete_point(point)
    store.maintain()
    before = store.packs()
    assert before
    take_over(store)
    with pytest.raises(StorageUnavailableError, match="taken over"):
        collect_again_and_again(store.service.context)
    assert store.packs() == before


def test_commits_acknowledged_before_the_marker_are_rebuilt(store):
    """The marker is written before the records are read, so they include every acknowledged commit."""
    api = store.api()
    point = api.backup({"before": b"1"})
    job = api.start_job()
    api.put(job, "name", b"1")
    place = store.place._replace(catalog=f"{store.place.catalog}.new")
    steps = rebuild_shared(place, outcome := RebuildResult(), clock=store.clock)
    next(steps)  # the marker exists
    with pytest.raises(ServiceUnavailableException):
        api.commit(job)
    for _ in steps:
        pass
    assert outcome.losses == []
    assert outcome.recovery_points in (1, 2), "what was not acknowledged may be there or not"
    store.service.close()
    store.place, store.service = place, SharedStore(place).service
    assert api.restored(point) == {"before": b"1"}


def test_an_interrupted_rebuild_can_be_repeated(store):
    """After any step, on the same database. The store does not open in between, and the first run cannot continue."""
    api = store.api()
    point = api.backup({"name": b"1" * 1000, "other": b"2"})
    store.service.close()
    place = store.place._replace(catalog=f"{store.place.catalog}.new")
    for count in (1, 2, 4):
        steps = rebuild_shared(place, RebuildResult(), clock=store.clock)
        for _ in range(count):
            next(steps)
        with pytest.raises(Exception, match="holds no store yet|is out of date"):
            SharedStore(place)
    first = steps
    for _ in rebuild_shared(place, outcome := RebuildResult(), clock=store.clock):
        pass
    assert (outcome.recovery_points, outcome.objects, outcome.losses) == (1, 2, [])
    with pytest.raises(Exception, match="another `cryo rebuild-catalog`"):
        for _ in first:
            pass
    store.place = place
    store.service = store.open()
    assert store.api().restored(point) == {"name": b"1" * 1000, "other": b"2"}
    assert store.problems() == []


def test_one_of_two_concurrent_rebuilds_succeeds(store):
    """On the same database the first one can no longer write; on another database it ends without a catalog."""
    store.api().backup({"name": b"1"})
    store.service.close()
    place = store.place._replace(catalog=f"{store.place.catalog}.new")
    other = store.place._replace(catalog=f"{store.place.catalog}.other")
    first, second, third = (
        rebuild_shared(where, RebuildResult(), clock=store.clock) for where in (place, place, other)
    )
    next(first)
    next(second)
    with pytest.raises(ConfigurationError, match="another `cryo rebuild-catalog`"):
        next(first)
    next(third)
    with pytest.raises(ConfigurationError, match="another `cryo rebuild-catalog`"):
        list(second)
    with pytest.raises(ConfigurationError, match="holds no store yet"):
        SharedStore(place)
    list(third)
    store.place = other
    store.service = store.open()


def test_one_of_two_rebuilds_takes_over_the_same_rows(store):
    """A run that finds a claim other than the one it saw gives up."""
    database, keyring = store.service.context.database, store.place.open_keyring()
    identity = find_identity(database, store.service.context.keys.keyring).identity
    claim = take_claim(database, keyring, identity, None)
    with pytest.raises(ConfigurationError, match="another `cryo rebuild-catalog`"):
        take_claim(database, keyring, identity, None)
    assert take_claim(database, keyring, identity, claim) != claim


def test_a_rebuild_changes_nothing_before_its_checks_pass(store, tmp_path):
    """The checks refuse a keyring of another store, a catalog in use, and blobs without a store."""
    api = store.api()
    api.backup({"name": b"1"})
    with opened_shared(tmp_path / "other") as other:
        wrong = (
            store.place._replace(catalog=str(tmp_path / "new"), keyring=other.place.keyring),
            store.place,
            store.place._replace(catalog=other.place.catalog),
            store.place._replace(catalog=str(tmp_path / "new"), blobs=str(tmp_path / "nothing")),
        )
        for place in wrong:
            with pytest.raises(Exception, match="keyring has no master key|there is a catalog|does not hold the blobs"):
                next(rebuild_shared(place, RebuildResult()))
    assert newest_marker(LocalBlobs(Path(store.place.blobs))).number == 1
    store.reopen()


def test_damaged_markers(tmp_path):
    """A damaged marker is not reported as a later format, and neither of them as a missing store."""
    blobs = LocalBlobs(tmp_path / "blobs")
    blobs.put(marker_key(1), b'{"format": 2, "new": true}')
    with pytest.raises(UnknownFormatError):
        newest_marker(blobs)
    blobs.delete(marker_key(1))
    for data in (b"", b"{}", b'{"format": 1}', b"\xff"):
        blobs.put(marker_key(1), data)
        with pytest.raises(DamagedDataError):
            newest_marker(blobs)
        blobs.delete(marker_key(1))
    assert newest_marker(blobs) is None
