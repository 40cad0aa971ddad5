"""Pictures of stores: everything that the API returns, as plain data, to be compared with an earlier picture."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing

import msgspec

from cryostore.client.pages import chunks, items, objects
from cryostore.model.chunks import GetChunk
from cryostore.model.jobs import ListBackupJobs
from cryostore.model.objects import GetObjectMetadata
from cryostore.model.recovery_points import (
    DescribeRecoveryPoint,
    GetRecoveryPointRestoreMetadata,
    ListRecoveryPointsByBackupVault,
)
from cryostore.model.restore_jobs import ListRestoreJobs
from cryostore.model.vaults import DescribeBackupVault, ListBackupVaults

CHUNKS_SHOWN_MAX = 12
TAGGED = {"vault_tags": "SELECT name, tags FROM vault", "point_tags": "SELECT point_id, tags FROM recovery_point"}


def picture(api):
    """Return vaults, jobs, points and restore jobs by name, with every object and byte. Starts restore jobs."""
    vaults = [one.backup_vault_name for one in items(api, ListBackupVaults())]
    jobs, restore_jobs = list(items(api, ListBackupJobs())), list(items(api, ListRestoreJobs()))
    shown = {
        "vaults": {name: plain(api.call(DescribeBackupVault(backup_vault_name=name))) for name in vaults},
        "jobs": {one.backup_job_id: plain(one) for one in jobs},
        "restore_jobs": {one.restore_job_id: plain(one) for one in restore_jobs},
        **_tags(api.data_dir),
    }
    running = [one.backup_job_id for one in jobs if one.state == "RUNNING"]
    running += [one.restore_job_id for one in restore_jobs if one.status in ("PENDING", "RUNNING")]
    shown["views"] = {job: view(api, job) for job in running}
    shown["points"] = {}
    for name in vaults:
        for point in list(items(api, ListRecoveryPointsByBackupVault(backup_vault_name=name))):
            shown["points"][point.recovery_point_arn] = _point(api, name, point)
    return shown


def view(api, storage_job):
    """Return every object of a storage job by name, with a digest of its bytes."""
    return {one.name: _object(api, storage_job, one) for one in objects(api, storage_job)}


def plain(shape, *without):
    """Return an output as plain data, without absent members."""
    said = msgspec.to_builtins(shape)
    return {name: value for name, value in said.items() if value is not None and name not in without}


def differences(expected, found, place="the store"):
    """Return the differences of `found` from `expected`. Later versions may add members, which do not count."""
    if isinstance(expected, dict) and isinstance(found, dict):
        missing = [f"{place}: {name} is missing" for name in expected if name not in found]
        shared = (name for name in expected if name in found)
        return missing + [
            line for name in shared for line in differences(expected[name], found[name], f"{place}/{name}")
        ]
    return [] if expected == found else [f"{place}: {expected!r} became {found!r}"]


def _point(api, vault, listed):
    arn = listed.recovery_point_arn
    described = api.call(DescribeRecoveryPoint(backup_vault_name=vault, recovery_point_arn=arn))
    shown = {"described": plain(described, "LastRestoreTime"), "listed": plain(listed, "LastRestoreTime")}
    if listed.status == "COMPLETED":
        metadata = GetRecoveryPointRestoreMetadata(backup_vault_name=vault, recovery_point_arn=arn)
        shown["restore_metadata"] = plain(api.call(metadata))
        restore = api.restore(arn)
        shown["objects"] = view(api, restore)
        api.end_restore(restore)
    return shown


def _object(api, storage_job, listed):
    content, places = hashlib.sha256(), []
    for chunk in chunks(api, storage_job, listed.object_token):
        got = api.call(GetChunk(storage_job_id=storage_job, chunk_token=chunk.chunk_token))
        content.update(got.data.data)
        assert (got.length, got.checksum) == (chunk.length, chunk.checksum)
        places.append([chunk.index, chunk.length, chunk.checksum])
    metadata = api.call(GetObjectMetadata(storage_job_id=storage_job, object_token=listed.object_token))
    return {
        "listed": plain(listed, "ObjectToken"),
        "content": content.hexdigest(),
        "chunks": places if len(places) <= CHUNKS_SHOWN_MAX else _digest(places),
        "metadata": {
            "string": metadata.metadata_string,
            "blob": hashlib.sha256(metadata.metadata_blob.data).hexdigest() if metadata.metadata_blob else None,
            "checksum": metadata.metadata_blob_checksum,
        },
    }


def _digest(places):
    return hashlib.sha256(json.dumps(places).encode()).hexdigest()


def _tags(data_dir):
    """Return the tags from the catalog, because no operation of the API returns them."""
    with closing(sqlite3.connect(f"file:{data_dir / 'catalog.sqlite'}?mode=ro", uri=True)) as connection:
        return {
            what: {name: json.loads(tags) for name, tags in connection.execute(query) if tags != "{}"}
            for what, query in TAGGED.items()
        }
