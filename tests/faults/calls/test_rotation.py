"""Faults of single calls during a rotation of the master key: database, blobs, and the disk of the keyring.

After each failure the store opens again, all data can be read, and the same command completes the rotation.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil

import pytest

from cryostore.chunks.keyring.sources import FileKeyring
from cryostore.core.errors import CryostoreError, StorageFullError
from cryostore.core.time import HOUR_MS
from cryostore.maintenance.key_rotation import RotationResult, forget_master_key, rotate_master_key, rotate_vault_key
from cryostore.maintenance.key_uses import count_key_uses
from support.faults.faulty_blobs import FaultyBlobs
from support.faults.faulty_database import FaultyDatabase
from support.stores.in_process import Store, opened
from support.stores.integrity import problems

BLOB_CALLS = ["put", "get", "delete"]
DISK_CALLS = ["open", "fsync", "pwritev", "replace", "fchmod"]


class PowerCutError(BaseException):
    """An exception that no code catches."""


class Rotation:
    """A store with two vaults whose parts all fail on demand, and a rotation of its keys."""

    def __init__(self, template, data_dir):
        shutil.copytree(template, data_dir)
        self.store = Store(data_dir)
        context = self.store.service.context
        self.database = FaultyDatabase(context.database)
        self.blobs = FaultyBlobs(context.records._blobs)
        context.keys._database = context.keys.keyring._database = self.database
        context.records._blobs = self.blobs
        self.context = dataclasses.replace(context, database=self.database)

    def run(self):
        """Rotate the master key, and the data key of a vault."""
        for _ in rotate_master_key(self.context, RotationResult()):
            pass
        rotate_vault_key(self.context, "Default")

    def check(self, points):
        """Open the store again: all data is there. The next rotation completes, and the old key is no longer needed.

        It runs after the claim of a failed rotation has expired.
        """
        self.store.clock.advance(HOUR_MS)
        self.store.reopen()
        self.read(points)
        outcome = RotationResult()
        for _ in rotate_master_key(self.store.service.context, outcome):
            pass
        assert outcome.is_finished
        for key_id in set(FileKeyring(self.store.data_dir / "keyring.json").document().keys) - {outcome.key_id}:
            forget_master_key(self.store.service.context, key_id)
        self.store.reopen()
        self.read(points)
        assert count_key_uses(self.store.service.context).by_key.keys() == {outcome.key_id}
        assert problems(self.store.data_dir) == []
        assert list(self.store.data_dir.glob("~*.json")) == []
        self.store.service.close()

    def read(self, points):
        """Read every object of every point, and write new ones."""
        api = self.store.api()
        for arn, content in points.items():
            assert api.restored(arn) == content
        assert api.restored(api.backup({"more": b"more"})) == {"more": b"more"}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A data directory, and the content of its recovery points."""
    with opened(tmp_path_factory.mktemp("template") / "data") as store:
        points = {}
        for number in range(2):
            api = store.api()
            if number:
                api.new_vault()
            points[api.backup({"a": b"%d" % number, "b": b"same"})] = {"a": b"%d" % number, "b": b"same"}
        store.service.close()
        yield store.data_dir, points
        store.service = store.open()


@pytest.fixture
def rotations(template, tmp_path):
    """A function that makes a new store, a copy of the template."""
    return (Rotation(template[0], tmp_path / f"{number}") for number in itertools.count())


def each_fails(rotations, points, fail, struck):
    """Rotate with a failure at each call: `fail(rotation, k)` plans it for call k, `struck` returns whether it came."""
    for at in itertools.count(1):
        rotation = next(rotations)
        fail(rotation, at)
        try:
            rotation.run()
        except CryostoreError:
            pass
        else:
            if not struck(rotation):
                rotation.store.service.close()
                return at - 1
        rotation.database.heal()
        rotation.check(points)
    raise AssertionError


@pytest.mark.parametrize("kind", ["read", "write", "answer lost"])
def test_each_transaction_fails(rotations, template, kind):
    def fail(rotation, at):
        rotation.database.fail(at, kind="read" if kind == "read" else "write", answer_lost=kind == "answer lost")

    count = each_fails(rotations, template[1], fail, lambda rotation: not rotation.database.faults_left)
    assert count > 10


@pytest.mark.parametrize("method", BLOB_CALLS)
def test_each_call_to_the_blobs_fails(rotations, template, method):
    def fail(rotation, at):
        rotation.blobs.fail(method, at, StorageFullError("full") if method == "put" else None)

    assert each_fails(rotations, template[1], fail, lambda rotation: not rotation.blobs.faults) > 2


@pytest.mark.parametrize("call", DISK_CALLS)
def test_each_operation_on_files_fails(rotations, template, monkeypatch, call):
    """The files are those of the keyring, the blobs and the catalog."""
    real, numbers, struck = getattr(os, call), [0, 0], [False]

    def failing(*arguments, **more):
        numbers[0] += 1
        if numbers[0] == numbers[1]:
            struck[0] = True
            raise OSError(5, "Input/output error")
        return real(*arguments, **more)

    def fail(_, at):
        numbers[:], struck[0] = [0, at], False

    monkeypatch.setattr(os, call, failing)

    def came(_):
        return struck[0]

    each_fails(rotations, template[1], fail, came)


def test_the_power_fails_before_each_transaction(rotations, template):
    for at in itertools.count(1):
        rotation, calls = next(rotations), itertools.count(1)

        def cut(rotation=rotation, calls=calls, at=at):
            if next(calls) == at:
                rotation.database.die()
                raise PowerCutError

        rotation.database.on_write(cut)
        try:
            rotation.run()
        except PowerCutError:
            rotation.check(template[1])
        else:
            rotation.store.service.close()
            break
    assert at > 8


def test_removing_a_key_fails_at_each_operation_on_files(rotations, template, monkeypatch):
    """The key is still in the keyring, or it is removed. No other key is removed."""
    for call in ("open", "fsync", "pwritev", "replace"):
        for at in itertools.count(1):
            rotation = next(rotations)
            rotation.run()
            document = FileKeyring(rotation.store.data_dir / "keyring.json").document()
            (old,) = document.keys.keys() - {document.active.key_id}
            real, numbers = getattr(os, call), itertools.count(1)

            def failing(*arguments, real=real, numbers=numbers, at=at, **more):
                if next(numbers) == at:
                    raise OSError(5, "Input/output error")
                return real(*arguments, **more)

            failed = False
            with monkeypatch.context() as patch:
                patch.setattr(os, call, failing)
                try:
                    forget_master_key(rotation.context, old)
                except CryostoreError:
                    failed = True
            rotation.check(template[1])
            if not failed and next(numbers) <= at:
                break
