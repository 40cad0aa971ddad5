"""Opening a data directory: creation, sharing among processes, recovery."""

from __future__ import annotations

import errno
import random
import stat
import subprocess
import sys
import threading

import pytest

from cryostore.chunks import durable_files
from cryostore.chunks.envelope import ENVELOPE_OVERHEAD_BYTES
from cryostore.core.errors import ConfigurationError, StorageUnavailableError
from cryostore.core.ids import counting_ids
from cryostore.model.vaults import ListBackupVaults
from cryostore.service import Caller
from cryostore.service.opening import assembly as opening
from cryostore.service.opening.open import open_service
from cryostore.service.settings import Settings
from support.requests.api import new_resource
from support.stores.in_process import opened
from support.stores.integrity import problems

COVERS = ("service/opening/assembly.py",)


OPEN_AND_WRITE = """
import sys
from pathlib import Path
from cryostore.core.digest import Payload
from cryostore.model.jobs import CommitBackupJob, StartBackupJob
from cryostore.model.objects import PutObject
from cryostore.service import Caller, opening
from cryostore.service.opening.open import open_service
service = open_service(Path(sys.argv[1]))
call = service.as_caller(Caller("AKIA", root=True)).call
start = StartBackupJob(
    backup_vault_name="Default", resource_arn=sys.argv[2], iam_role_arn="arn:aws:iam::000000000000:role/x"
)
job = call(start).backup_job_id
for number in range(10):
    call(PutObject(backup_job_id=job, object_name=str(number), inline_chunk=Payload(b"%d" % number * 100)))
print(call(CommitBackupJob(backup_job_id=job)).recovery_point_arn)
if "die" in sys.argv:
    import os
    os._exit(9)
service.close()
"""


def modes(data_dir):
    """The permissions of everything in a directory."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in data_dir.rglob("*")}


def test_a_new_store(tmp_path):
    """Only the owner can read its directory, keyring, catalog and credentials."""
    data_dir = tmp_path / "a" / "data"
    with opened(data_dir) as store:
        store.api().backup({"name": b"1"})
        assert {vault.backup_vault_name for vault in store.call(ListBackupVaults()).backup_vault_list} == {"Default"}
        found = modes(data_dir)
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        assert {"keyring.json", "catalog.sqlite", "credentials", "packs"} <= set(found)
        assert {name for name, mode in found.items() if mode & 0o077} == set()


def test_the_credentials_are_those_of_the_root_caller(store):
    text = (store.data_dir / "credentials").read_text()
    values = dict(line.split(" = ") for line in text.splitlines() if " = " in line)
    assert text.count("[default]") == 1
    assert values["region"] == "local-1"
    assert store.service.access.secret(values["aws_access_key_id"]) == values["aws_secret_access_key"]
    assert store.service.access.caller(values["aws_access_key_id"]).root


def test_opening_again_changes_nothing_and_restores_a_lost_credentials_file(store):
    path = store.data_dir / "credentials"
    text, keyring = path.read_text(), (store.data_dir / "keyring.json").read_bytes()
    path.unlink()
    store.reopen()
    assert path.read_text() == text
    path.write_text("# edited by its owner")
    store.reopen()
    assert path.read_text() == "# edited by its owner"
    assert (store.data_dir / "keyring.json").read_bytes() == keyring


def test_a_new_store_can_be_opened_concurrently(tmp_path):
    """All openers get the same keyring, root key and vault."""
    services, start = [], threading.Barrier(6)

    def run():
        start.wait()
        services.append(open_service(tmp_path / "data"))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    root = Caller("AKIA", root=True)
    try:
        (vault,) = services[0].call(ListBackupVaults(), root).backup_vault_list
        assert [service.call(ListBackupVaults(), root).backup_vault_list for service in services] == [[vault]] * 6
        key = next(
            line.partition(" = ")[2]
            for line in (tmp_path / "data" / "credentials").read_text().splitlines()
            if line.startswith("aws_access_key_id")
        )
        assert len({service.access.secret(key) for service in services}) == 1
        assert len(services) == 6
    finally:
        for service in services:
            service.close()


@pytest.mark.parametrize("end", ["close", "die"])
def test_several_processes_write_to_one_store(store, end):
    """Each process has a pack of its own. All can read the chunks of one, even after it was killed."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_WRITE, str(store.data_dir), new_resource(), end],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    arns = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert {process.returncode for process in processes} == {9 if end == "die" else 0}
    store.reopen()
    api = store.api()
    for arn in arns:
        assert api.restored(arn) == {str(number): b"%d" % number * 100 for number in range(10)}
    assert problems(store.data_dir) == []


def test_a_torn_tail_is_cut_and_the_data_before_it_stays(store):
    """A process died in the middle of an envelope."""
    api = store.api()
    data = random.Random(1).randbytes(1000)
    arn = api.backup({"name": data})
    (pack,) = (store.data_dir / "packs").rglob("*.pack")
    whole = pack.read_bytes()
    envelope = whole[-len(data) - ENVELOPE_OVERHEAD_BYTES :]
    pack.write_bytes(whole + envelope[:-1])
    store.crash()
    assert pack.read_bytes() == whole
    assert api.restored(arn) == {"name": data}


@pytest.mark.parametrize("pack_bytes", [1000, 1 << 20])
def test_closed_packs_are_not_scanned_again(tmp_path, monkeypatch, pack_bytes):
    """After a long run with many packs, only the last one may be torn, and none after a clean shutdown."""
    looked = []
    monkeypatch.setattr(opening, "cut_torn_tail", lambda _, pack_id, **__: looked.append(pack_id))
    with opened(tmp_path / "data", settings=Settings(pack_bytes_target=pack_bytes)) as store:
        files = {f"{number}": random.Random(number).randbytes(700) for number in range(9)}
        arn = store.api().backup(files)
        assert len(list((store.data_dir / "packs").rglob("*.pack"))) == (5 if pack_bytes == 1000 else 1)
        store.crash()
        assert len(looked) <= 1
        looked.clear()
        store.api().backup({"more": b"more"})
        store.reopen()
        assert looked == []
        assert store.api().restored(arn) == files


def test_a_store_with_a_missing_pack_opens(store):
    """Data in other packs can still be restored."""
    api = store.api()
    api.backup({"lost": b"1"})
    (pack,) = (store.data_dir / "packs").rglob("*.pack")
    store.service.close()
    pack.unlink()
    store.service = store.open()
    api.resource = new_resource()
    assert api.restored(api.backup({"name": b"2"})) == {"name": b"2"}


def test_a_store_without_its_keyring_is_not_opened_with_a_new_one(store, tmp_path):
    """A new one would make all its data unreadable."""
    path = store.data_dir / "keyring.json"
    kept = path.rename(tmp_path / "kept")
    with pytest.raises(ConfigurationError, match="missing"):
        store.open()
    assert not path.exists()
    kept.rename(path)
    store.reopen()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "data").write_text("no directory")
    with pytest.raises(StorageUnavailableError):
        open_service(tmp_path / "data")


def test_ids_come_from_the_source_that_is_passed_in(tmp_path):
    """Tests and golden files can predict them."""
    with opened(tmp_path / "data", new_id=counting_ids(1000)) as store:
        job = store.api().start_job()
        assert job.startswith("00000000-0000-4000-8000-")


def test_the_names_of_new_directories_are_flushed(tmp_path, monkeypatch):
    """A power loss right after the first acknowledged write must not remove the directory."""
    flushed = []
    real = durable_files.sync_directory
    monkeypatch.setattr(durable_files, "sync_directory", lambda path: (flushed.append(path), real(path)))
    open_service(tmp_path / "new" / "store").close()
    assert {tmp_path, tmp_path / "new"} <= set(flushed)


def test_a_directory_whose_parent_cannot_be_flushed_is_used(tmp_path, monkeypatch):
    """A directory that an administrator made is used even if its parent may not be opened."""

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "store").mkdir(mode=0o700)
    with monkeypatch.context() as patch:
        patch.setattr("cryostore.service.opening.open.make_directory", refuse)
        open_service(tmp_path / "store").close()
        with pytest.raises(StorageUnavailableError, match="Permission denied"):
            open_service(tmp_path / "absent")
