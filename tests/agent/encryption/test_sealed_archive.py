"""A golden sealed archive: later versions must open it, list it, and read every byte of it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from cryostore.agent.archive.listing import archive_entries
from cryostore.agent.archive.reader import Archive
from cryostore.agent.encryption.agent_key import AgentKey
from cryostore.agent.encryption.keyed_call import KeyedCall
from cryostore.agent.report import Report
from cryostore.agent.verification.archive_check import verify_archive
from cryostore.core.digest import Payload, sha256
from cryostore.core.errors import KeyUnavailableError
from cryostore.model.chunks import Chunk, GetChunk, GetChunkOutput, ListChunksOutput
from cryostore.model.objects import (
    BackupObject,
    GetObjectMetadata,
    GetObjectMetadataOutput,
    ListObjects,
    ListObjectsOutput,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "sealed-archive-1.json"
KEY = AgentKey(bytes(range(32)))


class Recorded:
    """A store with the golden archive: the chunks and metadata blobs of its objects, by name."""

    def __init__(self):
        found = json.loads(GOLDEN.read_text())
        self.chunks = {name: [base64.b64decode(chunk) for chunk in each["chunks"]] for name, each in found.items()}
        self.blobs = {name: base64.b64decode(each["blob"]) for name, each in found.items() if each["blob"]}

    def call(self, operation):
        if isinstance(operation, ListObjects):
            return ListObjectsOutput(object_list=[self._object(name) for name in sorted(self.chunks)])
        if isinstance(operation, GetObjectMetadata):
            blob = self.blobs.get(operation.object_token)
            return GetObjectMetadataOutput(metadata_blob=None if blob is None else Payload(blob))
        if isinstance(operation, GetChunk):
            name, index = operation.chunk_token.split(" ")
            data = self.chunks[name][int(index)]
            return GetChunkOutput(
                data=Payload(data), length=len(data), checksum=sha256(data).hex(), checksum_algorithm="SHA256"
            )
        name = operation.object_token
        return ListChunksOutput(
            chunk_list=[self._chunk(name, index, data) for index, data in enumerate(self.chunks[name])]
        )

    def _object(self, name):
        summary = sha256(b"".join(map(sha256, self.chunks[name]))).hex()
        return BackupObject(
            name=name,
            chunks_count=len(self.chunks[name]),
            object_checksum=summary,
            object_checksum_algorithm="SUMMARY",
            object_token=name,
        )

    def _chunk(self, name, index, data):
        return Chunk(
            index=index,
            length=len(data),
            checksum=sha256(data).hex(),
            checksum_algorithm="SHA256",
            chunk_token=f"{name} {index}",
        )


def test_a_golden_archive_opens_with_all_entries_and_bytes():
    archive = Archive(KeyedCall(Recorded(), KEY), "job")
    try:
        assert archive.sealing.is_owned
        assert archive.sealing.head.resource == "golden"
        found = {entry.path: (entry.row.size, entry.row.is_directory) for entry in archive_entries(archive)}
        assert found == {
            b"folder": (0, True),
            b"folder/link": (0, False),
            b"folder/second": (20_000, False),
            b"first": (5, False),
        }
        report = Report()
        verify_archive(archive, report, data=True)
        assert (report.issue_count, report.file_bytes) == (0, 20_005)
        assert archive.chunk_bytes(next(iter(archive.content_pages(1)))[0][0]) == b"first" + b"0123456789" * 2000
    finally:
        archive.close()


def test_another_key_does_not_open_the_archive():
    with pytest.raises(KeyUnavailableError):
        Archive(KeyedCall(Recorded(), AgentKey(bytes(32))), "job")
