"""How a run hides what it stores: under which key, for whom, and what it says in the clear instead of what it knows."""

from __future__ import annotations

from collections.abc import Iterable

from cryostore.agent.encryption.agent_key import PublicKey
from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.key_objects import is_key_name, key_object_name, wrap
from cryostore.agent.encryption.sealed_object import Recipient
from cryostore.agent.small_object import store_small
from cryostore.agent.upload.cut_points import Chunker, KeyedChunker, PlainChunker
from cryostore.agent.upload.object_upload import ObjectUpload, SegmentUpload
from cryostore.agent.upload.sealed_upload import SealedSegment, SealedUpload
from cryostore.model.operation import Call

OPAQUE = "cryo-agent-1"


class Plain:
    """Nothing is hidden: the store may read all."""

    def upload(self, call: Call, job_id: str, name: str) -> ObjectUpload:
        """An object of the archive that is to be written."""
        return ObjectUpload(call, job_id, name)

    def segment(self, call: Call, job_id: str, name: str) -> SegmentUpload | SealedSegment:
        """A segment of a disk that is to be written."""
        return SegmentUpload(call, job_id, name)

    def chunker(self) -> Chunker:
        """Where content is cut."""
        return PlainChunker()

    def restore_metadata(self, facts: dict[str, str]) -> dict[str, str]:
        """What the recovery point says of itself."""
        return facts

    def store_keys(
        self,
        call: Call,  # noqa: ARG002 - for who has keys, and so are the others
        job_id: str,  # noqa: ARG002
        old: dict[str, bytes],  # noqa: ARG002
        numbers: set[int],  # noqa: ARG002
    ) -> dict[str, bytes]:
        """Store the key objects that `old` lacks; answers the checksum of each the archive is to have.

        `numbers` are its content objects.
        """
        return {}


class Sealed(Plain):
    """All but sizes and times is hidden: sealed under an archive key, which is wrapped for its recipients."""

    def __init__(self, key: ArchiveKey, resource: str, recipients: Iterable[tuple[PublicKey, str]]) -> None:
        self.key = key
        self._resource = resource
        self._recipients = {each.public: (each, name) for each, name in recipients}

    def upload(self, call: Call, job_id: str, name: str) -> ObjectUpload:
        """See Plain."""
        recipients = [Recipient(each.public, name) for each, name in self._recipients.values()]
        return SealedUpload(call, job_id, name, self.key, self._resource, recipients)

    def segment(self, call: Call, job_id: str, name: str) -> SegmentUpload | SealedSegment:
        """See Plain."""
        return SealedSegment(call, job_id, name, self.key, self._resource)

    def chunker(self) -> Chunker:
        """See Plain."""
        return KeyedChunker(self.key.cut_secret)

    def restore_metadata(self, facts: dict[str, str]) -> dict[str, str]:
        """See Plain."""
        return {name: facts[name] for name in ("kind", "catalogObject") if name in facts} | {"encryption": OPAQUE}

    def store_keys(
        self,
        call: Call,
        job_id: str,
        old: dict[str, bytes],
        numbers: set[int],  # noqa: ARG002 - all keys stay
    ) -> dict[str, bytes]:
        """See Plain."""
        kept = {name: digest for name, digest in old.items() if is_key_name(name)}
        for recipient, _ in self._recipients.values():
            name = key_object_name(self.key.key_id, recipient)
            if name not in kept:
                kept[name] = store_small(call, job_id, name, wrap(self.key, recipient))
        return kept
