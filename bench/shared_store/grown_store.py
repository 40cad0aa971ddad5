"""A store whose catalog has as many rows as after years of use, and the calls that are timed on it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.shared_store import made_rows
from cryostore.client.pages import chunks, objects
from cryostore.core.digest import Payload
from cryostore.model.chunks import GetChunk, PutChunk
from cryostore.model.jobs import CommitBackupJob, StartBackupJob
from cryostore.model.objects import ListObjects, NotifyObjectComplete, PutObject, StartObject
from cryostore.model.restore_jobs import StartRestoreJob
from cryostore.service import Caller
from cryostore.service.opening.init import init
from cryostore.service.opening.open_shared import open_shared_service
from cryostore.service.opening.shared_store import SharedStoreAddress

CHUNK_BYTES = 4096
READABLE_CHUNKS = 200
PAGE_OBJECTS = 100
CHANGES = 10
ROLE = "arn:aws:iam::000000000000:role/backup-agent"
GROWN, OTHER = (f"arn:aws:cryo:local-1:000000000000:fileset:host:{name}" for name in ("grown", "other"))
ROOT = Caller(access_key_id="measured", root=True)


class GrownStore:
    """A store in a new `folder`, with its catalog there or at a URL. Must be closed.

    Each timed call is returned as a function; its preparation is done before.
    """

    def __init__(self, catalog: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.place = SharedStoreAddress(catalog, str(folder / "blobs"), str(folder / "keyring.json"))
        self.made_chunk_bytes: dict[str, float] = {}
        """The bytes that each made chunk has added to tables and indexes."""
        init(self.place, folder / "credentials")
        self._service = open_shared_service(self.place)
        self._readable = [secrets.token_bytes(CHUNK_BYTES) for _ in range(READABLE_CHUNKS)]
        self._count = 0
        self._objects = 0
        self._point = self._write_point()

    def grow(self, *, chunk_rows: int, per_pack: int, object_rows: int) -> None:
        """Make the rows and reopen the store. The objects are added to the recovery point."""
        self._service.close()
        catalog = self.place.catalog
        before = made_rows.sizes_bytes(catalog)
        made_rows.make_chunks(catalog, chunk_rows, per_pack=per_pack)
        after = made_rows.sizes_bytes(catalog)
        self.made_chunk_bytes = {name: (after[name] - before[name]) / chunk_rows for name in after}
        made_rows.make_objects(catalog, object_rows, chunk=self._readable[0])
        self._objects = object_rows
        made_rows.refresh_statistics(catalog)
        self._service = open_shared_service(self.place)
        self._begin()

    def close(self) -> None:
        """Close the store."""
        self._service.close()

    def call(self, operation: Any) -> Any:
        """Call an operation."""
        return self._service.call(operation, ROOT)

    # --- timed calls

    def put_chunk(self) -> Callable[[], object]:
        """Prepare a PutChunk of new bytes."""
        operation = self._chunk(self._job, self._upload, self._counted(), secrets.token_bytes(CHUNK_BYTES))
        return lambda: self.call(operation)

    def get_chunk(self) -> Callable[[], object]:
        """Prepare a GetChunk of a chunk that was written before the rows were made."""
        token = self._tokens[self._counted() % len(self._tokens)]
        return lambda: self.call(GetChunk(storage_job_id=self._restore_job, chunk_token=token))

    def list_objects(self) -> Callable[[], object]:
        """Prepare a ListObjects page from a random position."""
        name = f"file-{secrets.randbelow(max(self._objects - PAGE_OBJECTS, 1)):09}"
        operation = ListObjects(storage_job_id=self._restore_job, starting_object_name=name, max_results=PAGE_OBJECTS)
        return lambda: self.call(operation)

    def put_object(self) -> Callable[[], object]:
        """Prepare a PutObject that replaces an inherited object, in a job based on the recovery point."""
        operation = self._changed(self._job, f"file-{secrets.randbelow(self._objects):09}")
        return lambda: self.call(operation)

    def commit(self) -> Callable[[], object]:
        """Prepare a commit of ten changes to the last recovery point: five objects replaced, five new."""
        job = self._start(GROWN)
        for number in range(CHANGES):
            known = f"file-{secrets.randbelow(self._objects):09}"
            self.call(self._changed(job, known if number % 2 else f"new-{secrets.token_hex(8)}"))
        return lambda: self.call(CommitBackupJob(backup_job_id=job))

    # --- preparation

    def _write_point(self) -> str:
        """Make a recovery point with the readable chunks."""
        job = self._start(GROWN)
        upload = self.call(StartObject(backup_job_id=job, object_name="a-readable")).upload_id
        for index, data in enumerate(self._readable):
            self.call(self._chunk(job, upload, index, data))
        digests = b"".join(hashlib.sha256(data).digest() for data in self._readable)
        self.call(
            NotifyObjectComplete(
                backup_job_id=job,
                upload_id=upload,
                object_checksum=hashlib.sha256(digests).hexdigest(),
                object_checksum_algorithm="SUMMARY",
            )
        )
        return str(self.call(CommitBackupJob(backup_job_id=job)).recovery_point_arn)

    def _begin(self) -> None:
        """Start the jobs that are written to and read from."""
        self._job = self._start(OTHER, backup_options={"IncrementalBase": self._point.rpartition(":")[2]})
        self._upload = self.call(StartObject(backup_job_id=self._job, object_name="measured")).upload_id
        start = StartRestoreJob(recovery_point_arn=self._point, metadata={})
        self._restore_job = self.call(start).restore_job_id
        caller = self._service.as_caller(ROOT)
        readable = next(iter(objects(caller, self._restore_job)))
        self._tokens = [chunk.chunk_token for chunk in chunks(caller, self._restore_job, readable.object_token)]

    def _start(self, resource: str, **more: Any) -> str:
        start = StartBackupJob(backup_vault_name="Default", resource_arn=resource, iam_role_arn=ROLE, **more)
        return str(self.call(start).backup_job_id)

    def _changed(self, job: str, name: str) -> PutObject:
        data = Payload(secrets.token_bytes(CHUNK_BYTES))
        return PutObject(backup_job_id=job, object_name=name, inline_chunk=data)

    def _chunk(self, job: str, upload: str, index: int, data: bytes) -> PutChunk:
        return PutChunk(
            backup_job_id=job,
            upload_id=upload,
            chunk_index=index,
            data=Payload(data),
            length=len(data),
            checksum=hashlib.sha256(data).hexdigest(),
            checksum_algorithm="SHA256",
        )

    def _counted(self) -> int:
        self._count += 1
        return self._count
