"""Restore of an older copy of the catalog: every tool reports it, nothing is deleted, a rebuild has every point."""

from __future__ import annotations

import logging
from contextlib import contextmanager

import pytest

from cryostore.catalog import tables
from cryostore.catalog.tables import TABLES
from cryostore.core.time import DAY_MS
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.diagnosis import ERROR
from cryostore.maintenance.diagnosis.stores import check_directory, check_shared
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.verification.check import CheckResult, check
from cryostore.maintenance.verification.repair import RepairResult, repair
from cryostore.model.errors import InvalidRequestException, InvalidResourceStateException
from cryostore.model.recovery_points import DeleteRecoveryPoint
from cryostore.model.vaults import CreateBackupVault, DeleteBackupVault
from cryostore.service import unknown_commits
from cryostore.service.unknown_commits import OutdatedCatalogError
from support.requests.api import new_resource
from support.stores.in_process import opened
from support.stores.shared_store import ON_SERVICES, missing_services, opened_shared

SAID = "2 commits are in the store and not in this catalog"
SERVICES = pytest.param("services", marks=pytest.mark.skipif(bool(missing_services()), reason="needs services"))


class Directory:
    """A store in a directory, whose catalog can be copied and restored."""

    def __init__(self, store):
        self.store = store

    def diagnoses(self):
        return check_directory(self.store.data_dir, None, None)

    def copy(self):
        self.store.service.close()
        copied = {path.name: path.read_bytes() for path in self.store.data_dir.glob("catalog*")}
        self.store.service = self.store.open()
        return copied

    def put_back(self, copied):
        self.store.service.close()
        for path in self.store.data_dir.glob("catalog*"):
            path.unlink()
        for name, data in copied.items():
            (self.store.data_dir / name).write_bytes(data)
        self.store.service = self.store.open()


class Services(Directory):
    """The same store on PostgreSQL and S3; rows and sequences are copied as by pg_dump."""

    def diagnoses(self):
        return check_shared(self.store.place, now_ms=self.store.clock(), trial_name=None)

    def copy(self):
        def work(transaction):
            return [
                (table, tables.page(transaction, table, None, 10_000), _highest(transaction, table)) for table in TABLES
            ]

        return self.store.service.context.database.read(work)

    def put_back(self, copied):
        self.store.service.close()
        database = self.store.place.open_catalog()

        def work(transaction):
            for table in reversed(TABLES):
                tables.clear(transaction, table)
            for table, rows, highest in copied:
                tables.insert(transaction, table, rows)
                if table.number:
                    sequence = f"pg_get_serial_sequence('{table.name}', '{table.number}')"
                    transaction.rows(f"SELECT setval({sequence}, {highest + 1}, false)")

        database.write(work)
        database.close()
        self.store.service = self.store.open()


def _highest(transaction, table):
    return tables.highest_number(transaction, table) if table.number else 0


@contextmanager
def place_of(kind, folder):
    if kind == "directory":
        with opened(folder / "data") as store:
            yield Directory(store)
    else:
        with opened_shared(folder / "shared", ON_SERVICES) as store:
            yield Services(store)


def back_up(api, points, contents, **more):
    """Make a backup, and add its content to `points`."""
    arn = api.backup(contents, **more)
    points[arn] = api.restored(arn)
    return arn


def checked(store):
    outcome = CheckResult()
    for _ in check(store.service.context, outcome):
        pass
    return {found.kind.name: found.count for found in outcome.findings}


def days_go_by(store):
    """Run repair and the background tasks of servers: no collection deletes anything."""
    for _ in repair(store.service.context, RepairResult()):
        pass
    for _ in range(3):
        store.clock.advance(DAY_MS)
        maintain(store.service)
        with pytest.raises(OutdatedCatalogError, match=SAID):
            collect_all(store.service.context, quarantine_ms=0)


@pytest.mark.parametrize("kind", ["directory", SERVICES])
def test_points_that_an_older_catalog_lacks_are_rebuilt(kind, tmp_path, caplog):
    """They are, even after repair, a day of background tasks, refused deletions, and backups on the older catalog."""
    caplog.set_level(logging.ERROR)
    with place_of(kind, tmp_path) as place:
        store, points = place.store, {}
        api = store.api()
        other = new_resource()
        first = back_up(api, points, {"a": b"1", "gone": b"1"})
        back_up(api, points, {"a": b"2"})
        running = api.running_job(resource=other)
        older = place.copy()
        api.put(running, "c", b"of a job that ran when the copy was made")
        lost = api.commit(running)
        points[lost] = api.restored(lost)
        api.call(CreateBackupVault(backup_vault_name="late"))
        back_up(api, points, {"gone": None, "b": b"3", "long": b"x" * 90_000})
        api.delete_point(first)
        del points[first]

        place.put_back(older)
        assert SAID in caplog.text
        assert checked(store)["commit-unknown"] == 2
        assert [found.found for found in place.diagnoses() if found.level == ERROR and SAID in found.found]
        days_go_by(store)
        refused = DeleteRecoveryPoint(backup_vault_name=api.vault, recovery_point_arn=first)
        api.refuses(InvalidResourceStateException, refused, match=SAID)
        api.call(CreateBackupVault(backup_vault_name="another"))
        api.refuses(InvalidRequestException, DeleteBackupVault(backup_vault_name="another"), match=SAID)
        back_up(api, points, {"a": b"4", "more": b"y" * 90_000})
        back_up(api, points, {"a": b"5"})
        back_up(api, points, {"c": b"6"}, resource=other)

        assert store.rebuild().losses == []
        again = store.api()
        assert checked(store) == {}
        for arn, contents in points.items():
            assert again.restored(arn) == contents
        for _ in range(3):
            maintain(store.service)
            collect_all(store.service.context, quarantine_ms=0)
        for arn, contents in points.items():
            assert again.restored(arn) == contents
        assert store.rebuild().losses == []


def test_a_large_store_compares_a_part_on_opening_and_all_before_collection(tmp_path, monkeypatch):
    with opened(tmp_path / "data") as store:
        place, api = Directory(store), store.api()
        for number in range(4):
            api.backup({"a": b"%d" % number}, resource=new_resource())
        older = place.copy()
        api.backup({"late": b"1"}, resource=new_resource())
        monkeypatch.setattr("cryostore.service.opening.assembly.NAMES_AT_OPENING", 2)
        place.put_back(older)
        database = store.service.context.database
        assert database.read(unknown_commits.require_no_unknown_commits) is None
        with pytest.raises(OutdatedCatalogError):
            collect_all(store.service.context)
        with pytest.raises(OutdatedCatalogError):
            database.read(unknown_commits.require_no_unknown_commits)


def test_points_that_this_catalog_committed_or_deleted_are_never_unknown(tmp_path):
    with opened(tmp_path / "data") as store:
        api = store.api()
        for number in range(5):
            arn = api.backup({"a": b"%d" % number})
            if number % 2:
                api.delete_point(arn)
            store.reopen()
            collect_all(store.service.context, quarantine_ms=0)
            assert checked(store) == {}
