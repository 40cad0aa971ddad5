"""Short forms of API requests for tests, over any Call, and a digest of the stored data."""

from __future__ import annotations

import base64
import hashlib
import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cryostore.client.pages import chunks, items, objects
from cryostore.core.digest import Payload
from cryostore.core.limits import Limits
from cryostore.model.chunks import GetChunk, PutChunk
from cryostore.model.jobs import (
    CommitBackupJob,
    DescribeBackupJob,
    GetIncrementalBaseBackup,
    StartBackupJob,
    StopBackupJob,
)
from cryostore.model.objects import DeleteObject, GetObjectMetadata, NotifyObjectComplete, PutObject, StartObject
from cryostore.model.recovery_points import DeleteRecoveryPoint, DescribeRecoveryPoint
from cryostore.model.restore_jobs import CompleteRestoreJob, StartRestoreJob
from cryostore.model.vaults import CreateBackupVault

ROLE = "arn:aws:iam::000000000000:role/backup-agent"
BASE_SUFFIX = "-BASE"
numbers = itertools.count(1)


def sha(data):
    """Return the SHA-256 digest."""
    return hashlib.sha256(data).digest()


def hex_of(data):
    """Return the checksum of bytes in hex."""
    return sha(data).hex()


def base64_of(data):
    """Return the checksum of bytes in base64."""
    return base64.b64encode(sha(data)).decode()


def summary_hex(*contents):
    """Return the SUMMARY of an object with these chunks, in hex (B.4)."""
    return hex_of(b"".join(map(sha, contents)))


def summary_base64(*contents):
    """Return the SUMMARY of an object with these chunks, in base64."""
    return base64_of(b"".join(map(sha, contents)))


def new_resource(kind="fileset"):
    """Return the ARN of a new resource."""
    return f"arn:aws:cryo:local-1:000000000000:{kind}:host:test-{next(numbers)}"


class Api:
    """Short forms of requests over one Call. `clock` is None if the server uses the real clock."""

    def __init__(self, call, data_dir: Path, *, clock=None, limits=None, reopen=None, maintain=None):
        self._call = call
        self.data_dir = data_dir
        self.clock = clock
        self.limits = limits or Limits()
        self.reopen = reopen
        self.maintain = maintain
        self.resource = new_resource()
        self.vault = "Default"

    def call(self, operation):
        """Carry out an operation."""
        return self._call.call(operation)

    def refuses(self, error, operation, *, match=None):
        """Check that the operation is refused with this error, and return it."""
        with pytest.raises(error, match=match) as raised:
            self.call(operation)
        assert type(raised.value) is error
        return raised.value

    def refuses_and_keeps(self, error, operation, *, match=None):
        """Like `refuses`; check also that no row and no byte of a pack has changed."""
        before = footprint(self.data_dir)
        refusal = self.refuses(error, operation, match=match)
        assert footprint(self.data_dir) == before
        return refusal

    # --- backup jobs ------------------------------------------------------------------------------------------------

    def new_vault(self):
        """Create a vault for this test and use it from now on."""
        self.vault = f"vault-{next(numbers)}"
        self.call(CreateBackupVault(backup_vault_name=self.vault))
        return self.vault

    def start_operation(self, *, resource=None, **more):
        """Return a StartBackupJob with all required arguments."""
        arguments = {"backup_vault_name": self.vault, "iam_role_arn": ROLE} | more
        return StartBackupJob(resource_arn=resource or self.resource, **arguments)

    def start_job(self, *, resource=None, **more):
        """Start a job of the test's resource; return its id."""
        return self.call(self.start_operation(resource=resource, **more)).backup_job_id

    def running_job(self, **more):
        """Start a job and let it run, so that its base is fixed."""
        job = self.start_job(**more)
        self.call(GetIncrementalBaseBackup(backup_job_id=job))
        return job

    def put(self, job, name, data=None, **more):
        """PutObject."""
        payload = None if data is None else Payload(data)
        return self.call(PutObject(backup_job_id=job, object_name=name, inline_chunk=payload, **more))

    def start(self, job, name, *, throw=None):
        """Start an upload; return its id."""
        return self.call(StartObject(backup_job_id=job, object_name=name, throw_on_duplicate=throw)).upload_id

    def chunk_operation(self, job, upload, index, data, **more):
        """Return a PutChunk with the checksum and length of the data."""
        arguments = {"length": len(data), "checksum": hex_of(data), "checksum_algorithm": "SHA256"} | more
        return PutChunk(backup_job_id=job, upload_id=upload, chunk_index=index, data=Payload(data), **arguments)

    def chunk(self, job, upload, index, data, **more):
        """PutChunk."""
        return self.call(self.chunk_operation(job, upload, index, data, **more))

    def complete_operation(self, job, upload, contents, *, blob=None, **more):
        """Return a NotifyObjectComplete with the SUMMARY of the chunks."""
        arguments = {"object_checksum": summary_hex(*contents), "object_checksum_algorithm": "SUMMARY"} | more
        return NotifyObjectComplete(
            backup_job_id=job, upload_id=upload, metadata_blob=None if blob is None else Payload(blob), **arguments
        )

    def complete(self, job, upload, contents, **more):
        """NotifyObjectComplete."""
        return self.call(self.complete_operation(job, upload, contents, **more))

    def upload(self, job, name, contents, **more):
        """Upload a complete object, with its chunks by index, or in order from 0."""
        by_index = contents if isinstance(contents, dict) else dict(enumerate(contents))
        upload = self.start(job, name)
        for index, data in by_index.items():
            self.chunk(job, upload, index, data)
        self.complete(job, upload, [by_index[index] for index in sorted(by_index)], **more)
        return upload

    def delete(self, job, name):
        """DeleteObject."""
        return self.call(DeleteObject(backup_job_id=job, object_name=name))

    def commit(self, job, **more):
        """Commit a job; return the ARN of its recovery point."""
        return self.call(CommitBackupJob(backup_job_id=job, **more)).recovery_point_arn

    def stop(self, job):
        """StopBackupJob."""
        self.call(StopBackupJob(backup_job_id=job))

    def job(self, job):
        """DescribeBackupJob."""
        return self.call(DescribeBackupJob(backup_job_id=job))

    def backup(self, contents, **more):
        """Make a recovery point of the test's resource: its base, with these objects put and those of None deleted."""
        job = self.start_job(**more)
        for name, data in contents.items():
            if data is None:
                self.delete(job, name)
            else:
                self.put(job, name, data)
        return self.commit(job)

    # --- recovery points and restores -------------------------------------------------------------------------------

    def point(self, arn):
        """DescribeRecoveryPoint."""
        return self.call(DescribeRecoveryPoint(backup_vault_name=self.vault, recovery_point_arn=arn))

    def delete_point(self, arn):
        """DeleteRecoveryPoint."""
        self.call(DeleteRecoveryPoint(backup_vault_name=self.vault, recovery_point_arn=arn))

    def restore(self, arn, **more):
        """Start a restore job; return its id."""
        return self.call(StartRestoreJob(**({"recovery_point_arn": arn, "metadata": {}} | more))).restore_job_id

    def end_restore(self, job, status="COMPLETED"):
        """CompleteRestoreJob."""
        return self.call(CompleteRestoreJob(restore_job_id=job, status=status))

    def names(self, storage_job, **more):
        """Return the names in a view, in listing order."""
        return [one.name for one in objects(self, storage_job, **more)]

    def found(self, storage_job, name):
        """Return the list item of an object in a view."""
        (one,) = [one for one in objects(self, storage_job, prefix=name) if one.name == name]
        return one

    def chunks(self, storage_job, name):
        """Return the list items of an object's chunks."""
        return list(chunks(self, storage_job, self.found(storage_job, name).object_token))

    def listed(self, operation):
        """Return the items of all pages of a list."""
        return list(items(self, operation))

    def metadata(self, storage_job, name):
        """GetObjectMetadata."""
        token = self.found(storage_job, name).object_token
        return self.call(GetObjectMetadata(storage_job_id=storage_job, object_token=token))

    def read_chunks(self, storage_job, object_token):
        """Return the bytes of each chunk by index, verified against the list."""
        contents = {}
        for chunk in chunks(self, storage_job, object_token):
            got = self.call(GetChunk(storage_job_id=storage_job, chunk_token=chunk.chunk_token))
            data = bytes(got.data.data)
            assert (got.length, got.checksum) == (chunk.length, chunk.checksum)
            assert len(data) == chunk.length
            assert chunk.checksum in (hex_of(data), base64_of(data))
            contents[chunk.index] = data
        return contents

    def read(self, storage_job):
        """Return every object of a view with its bytes, its chunks joined in index order."""
        return {
            one.name: b"".join(self.read_chunks(storage_job, one.object_token).values())
            for one in objects(self, storage_job)
        }

    def restored(self, arn):
        """Restore a recovery point; return every object with its bytes."""
        job = self.restore(arn)
        found = self.read(job)
        self.end_restore(job)
        return found


def footprint(data_dir: Path):
    """Return a digest of every table's rows, and the size of every pack.

    In the place of a directory there may be what knows its own footprint.
    """
    if not isinstance(data_dir, Path):
        return data_dir.footprint()
    with closing(sqlite3.connect(f"file:{data_dir / 'catalog.sqlite'}?mode=ro", uri=True)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: _digest_of_rows(connection, table) for table in tables if not table.startswith("sqlite_")}
    packs = {path.name: path.stat().st_size for path in sorted((data_dir / "packs").rglob("*.pack"))}
    return rows, packs


def _digest_of_rows(connection, table):
    return hashlib.sha256(repr(sorted(map(repr, connection.execute(f"SELECT * FROM {table}")))).encode()).hexdigest()
