"""Checks of a store after a power loss: it opens without help, and every acknowledged write is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cryostore.client.pages import items
from cryostore.core.errors import ConfigurationError
from cryostore.core.time import FrozenClock
from cryostore.maintenance.rebuild.run import RebuildResult
from cryostore.maintenance.rebuild.stores import rebuild_directory
from cryostore.model.errors import ResourceNotFoundException
from cryostore.model.recovery_points import GetRecoveryPointRestoreMetadata, ListRecoveryPointsByBackupVault
from cryostore.service.opening.data_directory import existing_keyring
from cryostore.service.opening.open import CATALOG
from support.power.scenarios import RESTORE_METADATA, SETTINGS, STORE, content, sha
from support.requests.api import new_resource
from support.stores import audit, integrity
from support.stores.collecting import noise
from support.stores.in_process import Store


class Promised:
    """The content that must be there, according to the marks of a program."""

    def __init__(self, lines):
        self.credentials = None
        self.points, self.deleted = {}, set()
        self.objects, self.removed = {}, set()
        self.chunks = {}
        self.rebuilding = False
        for line in lines:
            facts = json.loads(line)
            getattr(self, f"_{facts.pop('kind')}")(**facts)

    def _started(self, credentials):
        self.credentials = credentials

    def _rebuilding(self):
        self.rebuilding = True

    def _rebuilt(self):
        self.rebuilding = False

    def _job(self, job):
        self.objects.setdefault(job, {})

    def _object(self, job, name, digest):
        self.objects.setdefault(job, {})[name] = digest

    def _removing(self, job, name):
        self.objects[job].pop(name, None)

    def _removed(self, job, name):
        self.removed.add((job, name))

    def _upload(self, job, upload):
        self.objects.setdefault(job, {})
        self.chunks[upload] = {}

    def _chunk(self, upload, index, digest):
        self.chunks[upload][index] = digest

    def _completing(self, upload):
        del self.chunks[upload]

    def _committing(self, job):
        self.objects.pop(job)

    def _point(self, arn, contents):
        self.points[arn] = contents

    def _deleting(self, arn):
        self.points.pop(arn, None)

    def _deleted(self, arn):
        self.deleted.add(arn)


def check(folder: Path, marks: list[str]) -> None:
    """Open the store below `folder` and check everything. Raises the first error."""
    promised = Promised(marks)
    if promised.rebuilding and not (folder / STORE / CATALOG).exists():
        _rebuild(folder / STORE)  # an interrupted rebuild must be repeated, and the error says so
    store = Store(folder / STORE, settings=SETTINGS)
    try:
        api = store.api()
        if promised.credentials is not None:
            assert sha((folder / STORE / "credentials").read_bytes()) == promised.credentials
        _check_points(api, promised)
        _check_jobs(api, promised)
        _check_chunks(store, promised)
        context = store.service.context
        assert audit.problems(context, context.database) == []
        _back_up(api)
    finally:
        store.service.close()
    assert integrity.problems(folder / STORE) == []


def check_rebuilt(folder: Path, marks: list[str]) -> None:
    """Check the recovery points like `check`, after the catalog was lost, too: the records are enough."""
    promised = Promised(marks)
    _rebuild(folder / STORE)
    store = Store(folder / STORE, settings=SETTINGS)
    try:
        _check_points(store.api(), promised)
        _back_up(store.api())
    finally:
        store.service.close()


def _rebuild(data_dir):
    if not (data_dir / CATALOG).exists():
        with pytest.raises(ConfigurationError) as refused:
            Store(data_dir, settings=SETTINGS)
        assert "rebuild-catalog" in refused.value.hint
    outcome = RebuildResult()
    for _ in rebuild_directory(data_dir, existing_keyring(data_dir), outcome, clock=FrozenClock(), replace=True):
        pass


def _check_points(api, promised):
    listed = items(api, ListRecoveryPointsByBackupVault(backup_vault_name="Default"))
    there = {point.recovery_point_arn for point in listed if point.status == "COMPLETED"}
    assert promised.points.keys() <= there, "a point is lost"
    assert not promised.deleted & there, "a deleted point is back"
    for arn in there:
        assert content(api.restored(arn)) == promised.points.get(arn, content(api.restored(arn)))
        if arn in promised.points:
            asked = GetRecoveryPointRestoreMetadata(backup_vault_name="Default", recovery_point_arn=arn)
            assert api.call(asked).restore_metadata in (RESTORE_METADATA, {})


def _check_jobs(api, promised):
    for job, objects in promised.objects.items():
        assert api.job(job).state in ("CREATED", "PENDING", "RUNNING")
        try:
            found = content(api.read(job))
        except ResourceNotFoundException:  # a job without a base has no view
            found = {}
        assert found.items() >= objects.items(), f"{objects.keys() - found.keys()} lost"
        assert not {name for other, name in promised.removed if other == job} & found.keys()


def _check_chunks(store, promised):
    query = "SELECT chunk_index, digest FROM upload_chunk JOIN upload USING (upload_number) WHERE upload_id = :upload"
    for upload, chunks in promised.chunks.items():
        rows = store.service.context.database.read(lambda t, upload=upload: t.rows(query, upload=upload))
        found = {index: digest.hex() for index, digest in rows}
        assert found.items() >= chunks.items(), "a chunk is lost"


def _back_up(api):
    """Check that the store accepts another backup."""
    api.resource = new_resource("after")
    contents = {"after": noise(9000), "again": noise(1)}
    assert api.restored(api.backup(contents)) == contents
