"""Archives of arbitrary bytes, committed as an agent does."""

from __future__ import annotations

from cryostore.agent.backup.job import open_job
from cryostore.agent.header import CATALOG, Header, content_name
from cryostore.agent.upload.object_upload import ObjectUpload
from cryostore.core.digest import Payload, sha256
from cryostore.model.chunks import PutChunk


def put(runs, catalog, content=b"x", header=None, kind="fileset", chunks=None):
    """Commit an archive of these bytes. `catalog` is one chunk or several."""
    job = open_job(runs.call, "Default", runs.resource, {}, kind=kind)
    summaries = {}
    catalog = [catalog] if isinstance(catalog, bytes) else catalog
    contents = [content] if chunks is None else chunks
    for name, pieces, blob in (
        (content_name(1), contents, None),
        (CATALOG, catalog, plain_header() if header is None else header),
    ):
        upload = ObjectUpload(runs.call, job.job_id, name)
        for data in pieces:
            index = upload.reserve()
            upload.set(index, sha256(data))
            chunk = Payload(data)
            runs.call.call(
                PutChunk(
                    backup_job_id=job.job_id,
                    upload_id=upload.open(),
                    chunk_index=index,
                    data=chunk,
                    length=len(chunk),
                    checksum=chunk.sha256.hex(),
                    checksum_algorithm="SHA256",
                )
            )
        upload.complete(blob)
        summaries[name] = upload.summary()
    job.commit(summaries, {}, 0)


def plain_header(entries=0, files=0, file_bytes=0, **members):
    """Return the smallest valid header."""
    empty = {"objects": [], "users": {}, "groups": {}}
    return Header(root=b"/x", entries=entries, files=files, file_bytes=file_bytes, **(empty | members)).encode()
