"""Small objects of one chunk, stored with one request."""

from __future__ import annotations

from cryostore.core.digest import Payload, sha256
from cryostore.model.objects import PutObject
from cryostore.model.operation import Call


def store_small(call: Call, job_id: str, name: str, data: bytes) -> bytes:
    """Store a small object and return its checksum. May be repeated."""
    payload = Payload(data)
    summary = sha256(payload.sha256)
    call.call(
        PutObject(
            backup_job_id=job_id,
            object_name=name,
            inline_chunk=payload,
            inline_chunk_length=len(data),
            inline_chunk_checksum=payload.sha256.hex(),
            inline_chunk_checksum_algorithm="SHA256",
            object_checksum=summary.hex(),
            object_checksum_algorithm="SUMMARY",
        )
    )
    return summary
