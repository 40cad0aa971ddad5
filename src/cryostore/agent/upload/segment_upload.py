"""A segment of a disk that is being written: its chunks have the numbers of their blocks, with gaps."""

from __future__ import annotations

from cryostore.agent.keys.archive_key import ArchiveKey
from cryostore.agent.upload.queue import ObjectUpload
from cryostore.agent.upload.sealed_upload import SealedUpload
from cryostore.core.digest import sha256
from cryostore.model.operation import Call


def _summary(digests: dict[int, bytes]) -> bytes:
    return sha256(b"".join(digests[index] for index in sorted(digests)))


class SegmentUpload(ObjectUpload):
    """A segment that the store may read."""

    def __init__(self, call: Call, job_id: str, name: str) -> None:
        super().__init__(call, job_id, name)
        self._by_index: dict[int, bytes] = {}

    def set(self, index: int, digest: bytes) -> None:
        """See ObjectUpload. No chunk is reserved before."""
        self._by_index[index] = digest

    def summary(self) -> bytes:
        """See ObjectUpload."""
        return _summary(self._by_index)


class SealedSegment(SealedUpload):
    """A sealed one. Its table has entries for the gaps, too, and follows the last block."""

    def __init__(self, call: Call, job_id: str, name: str, key: ArchiveKey, resource: str) -> None:
        super().__init__(call, job_id, name, key, resource, [])
        self._by_index: dict[int, bytes] = {}

    def set(self, index: int, digest: bytes) -> None:
        """See ObjectUpload. No chunk is reserved before."""
        self._by_index[index] = digest

    def summary(self) -> bytes:
        """See ObjectUpload."""
        return _summary(self._by_index)
