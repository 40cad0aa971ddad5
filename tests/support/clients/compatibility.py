"""The plan that every real client carries out: objects as JSON, which any language reads.

A client writes the plan's objects into a backup job with StartObject, PutChunk, NotifyObjectComplete, PutObject and
DeleteObject, and later reads a restore job back with ListObjects, ListChunks, GetChunk and GetObjectMetadata. Both
must be equal, byte for byte. Each client's program is in `tests/compat`.
"""

from __future__ import annotations

import base64
import json
import random

from cryostore.core.digest import sha256, summary
from cryostore.model.jobs import CommitBackupJob, StartBackupJob
from cryostore.model.restore_jobs import CompleteRestoreJob, StartRestoreJob

ROLE = "arn:aws:iam::000000000000:role/backup-agent"
NAMES = (
    "a/b",
    "%2F",
    "x/complete",
    "x/put-object",
    " leading and trailing ",
    "plus+and&equals=question?hash#percent%25",
    "~-_.!*'()",
    'quote"back\\slash',
    "\u00e9 e\u0301",
    *(chr(plane << 16 | 0xABCD) for plane in range(17)),
    "\U0010fffd",
    "n" * 1024,
)
DELETED = "deleted/later"


def plan(names=NAMES):
    """Return the objects to write, always the same: inline ones under all names, and uploads of several chunks."""
    random_bytes = random.Random(7)
    objects = [
        _inline(name, random_bytes.randbytes(place * 37), f"metadata of {place}") for place, name in enumerate(names)
    ]
    objects.append(_inline("inline without metadata", b"x", None))
    objects.append(
        _upload("upload/of/three", [(index, random_bytes.randbytes(300_000)) for index in range(3)], "three")
    )
    objects.append(_upload("sparse", [(5, b"five"), (2**53 - 1, b"far"), (0, b"")], "sparse", blob=b"\x00\xff" * 500))
    return {"objects": objects, "delete": DELETED}


def _inline(name, data, metadata_string):
    entry = {"name": name, "inline": _text(data), "length": len(data), "checksum": sha256(data).hex()}
    return entry | ({} if metadata_string is None else {"metadataString": metadata_string})


def _upload(name, chunks, metadata_string, blob=None):
    entry = {
        "name": name,
        "chunks": [
            {"index": index, "data": _text(data), "length": len(data), "checksum": _text(sha256(data))}
            for index, data in chunks
        ],
        "checksum": _text(summary(sha256(data) for _, data in sorted(chunks))),
        "metadataString": metadata_string,
    }
    if blob is not None:
        entry |= {"blob": _text(blob), "blobLength": len(blob), "blobChecksum": sha256(blob).hex()}
    return entry


def _text(data):
    return base64.b64encode(data).decode()


def expected(plan):
    """Return the expected result of reading, by name: chunks with index, checksum and data, and metadata."""
    read = {}
    for entry in plan["objects"]:
        if "inline" in entry:
            data = base64.b64decode(entry["inline"])
            chunks = [[0, entry["checksum"], entry["inline"]]]
            checksum = summary([sha256(data)]).hex()
        else:
            ordered = sorted(entry["chunks"], key=lambda chunk: chunk["index"])
            chunks = [[chunk["index"], chunk["checksum"], chunk["data"]] for chunk in ordered]
            checksum = entry["checksum"]
        read[entry["name"]] = {
            "checksum": checksum,
            "chunks": chunks,
            "metadataString": entry.get("metadataString"),
            "blob": entry.get("blob"),
        }
    return read


def start_job(call):
    """Start a backup job without a base."""
    started = call.call(
        StartBackupJob(
            backup_vault_name="Default",
            resource_arn=f"arn:aws:cryo:local-1:000000000000:Stream:host:{random.random()}",
            iam_role_arn=ROLE,
            backup_options={"IncrementalBase": "none"},
        )
    )
    return started.backup_job_id


def commit_and_restore(call, backup_job_id):
    """Commit a job and start a restore of its recovery point; return the id of the restore job."""
    point = call.call(CommitBackupJob(backup_job_id=backup_job_id)).recovery_point_arn
    return call.call(StartRestoreJob(recovery_point_arn=point, metadata={})).restore_job_id


def finish(call, restore_job_id):
    """End a restore job."""
    call.call(CompleteRestoreJob(restore_job_id=restore_job_id, status="COMPLETED"))


def request(verb, job_id, plan):
    """Return the stdin of a client's program."""
    return json.dumps({"verb": verb, "jobId": job_id, "plan": plan})
