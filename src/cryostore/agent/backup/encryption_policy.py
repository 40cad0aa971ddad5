"""Encryption policy of a run: none, sealed, or write-only.

A policy decides under which archive key objects are sealed and for which recipients, where content is cut, and which
facts the recovery point states in the clear. `choose_policy` picks it by the agent key and by the base of the run.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryostore.agent.archive.reader import Archive
from cryostore.agent.backup.write_only_base import LISTING_NUMBER, StoredChunks, WriteOnlyBase, key_id_in
from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.key_objects import is_key_name, key_object_name, wrap
from cryostore.agent.encryption.keyed_call import KeyedCall
from cryostore.agent.encryption.sealed_object import Recipient
from cryostore.agent.header import CATALOG, CONTENT_PREFIX
from cryostore.agent.small_object import store_small
from cryostore.agent.upload.cut_points import Chunker, KeyedChunker, PlainChunker
from cryostore.agent.upload.object_upload import ObjectUpload, SealedSegment, SealedUpload, SegmentUpload
from cryostore.core.digest import Buffer
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.model.operation import Call

OPAQUE = "cryo-agent-1"


class PlainPolicy:
    """No encryption by the agent: the store can read everything."""

    def upload(self, call: Call, job_id: str, name: str) -> ObjectUpload:
        """Return the upload of an object of the archive."""
        return ObjectUpload(call, job_id, name)

    def segment(self, call: Call, job_id: str, name: str) -> SegmentUpload | SealedSegment:
        """Return the upload of a segment of a disk."""
        return SegmentUpload(call, job_id, name)

    def chunker(self) -> Chunker:
        """Return the chunker that cuts content."""
        return PlainChunker()

    def restore_metadata(self, facts: dict[str, str]) -> dict[str, str]:
        """Return the part of `facts` that the recovery point may state in the clear."""
        return facts

    def store_keys(
        self,
        call: Call,  # noqa: ARG002 - for policies with keys, as are the others
        job_id: str,  # noqa: ARG002
        old: dict[str, bytes],  # noqa: ARG002
        numbers: set[int],  # noqa: ARG002
    ) -> dict[str, bytes]:
        """Store the key objects that `old` lacks. Return the checksum of each key object of the archive, by name.

        `old` are the objects of the base, `numbers` the content objects of the archive.
        """
        return {}


class SealedPolicy(PlainPolicy):
    """Encryption of everything except sizes and times, under an archive key that is wrapped for its recipients."""

    def __init__(self, key: ArchiveKey, resource: str, recipients: Iterable[tuple[PublicKey, str]]) -> None:
        self.key = key
        self._resource = resource
        self._recipients = {each.public: (each, name) for each, name in recipients}

    def upload(self, call: Call, job_id: str, name: str) -> ObjectUpload:
        """See PlainPolicy."""
        recipients = [Recipient(each.public, name) for each, name in self._recipients.values()]
        return SealedUpload(call, job_id, name, self.key, self._resource, recipients)

    def segment(self, call: Call, job_id: str, name: str) -> SegmentUpload | SealedSegment:
        """See PlainPolicy."""
        return SealedSegment(call, job_id, name, self.key, self._resource)

    def chunker(self) -> Chunker:
        """See PlainPolicy."""
        return KeyedChunker(self.key.cut_secret)

    def restore_metadata(self, facts: dict[str, str]) -> dict[str, str]:
        """See PlainPolicy."""
        return {name: facts[name] for name in ("kind", "catalogObject") if name in facts} | {"encryption": OPAQUE}

    def store_keys(
        self,
        call: Call,
        job_id: str,
        old: dict[str, bytes],
        numbers: set[int],  # noqa: ARG002 - all keys stay
    ) -> dict[str, bytes]:
        """See PlainPolicy."""
        kept = {name: digest for name, digest in old.items() if is_key_name(name)}
        for recipient, _ in self._recipients.values():
            name = key_object_name(self.key.key_id, recipient)
            if name not in kept:
                kept[name] = store_small(call, job_id, name, wrap(self.key, recipient))
        return kept


class WriteOnlyPolicy(SealedPolicy):
    """Write-only (public-key) encryption: each run seals under an archive key of its own and forgets it afterwards.

    The key stays in the archive, wrapped for the public key: only the holder of the whole agent key can open it.
    """

    def __init__(self, public: PublicKey, resource: str, base: WriteOnlyBase) -> None:
        super().__init__(ArchiveKey.generate(base.identity), resource, [(public, public.fingerprint)])
        self._public = public
        self._base = base

    def upload(self, call: Call, job_id: str, name: str) -> ObjectUpload:
        """See PlainPolicy."""
        recipients = [Recipient(self._public.public, self._public.fingerprint)]
        return _WriteOnlyUpload(call, job_id, name, self.key, self._resource, recipients, self._base.chunks)

    def store_keys(self, call: Call, job_id: str, old: dict[str, bytes], numbers: set[int]) -> dict[str, bytes]:
        """See PlainPolicy. Drops the keys of runs that sealed none of the remaining data."""
        used = self._base.chunks.used_keys(numbers)
        kept = {name: digest for name, digest in old.items() if key_id_in(name) in used}
        name = key_object_name(self.key.key_id, self._public)
        kept[name] = store_small(call, job_id, name, wrap(self.key, self._public))
        return kept


class _WriteOnlyUpload(SealedUpload):
    """Sealed upload that links chunks which earlier runs stored, although this run cannot open them."""

    def __init__(
        self,
        call: Call,
        job_id: str,
        name: str,
        key: ArchiveKey,
        resource: str,
        recipients: list[Recipient],
        chunks: StoredChunks,
    ) -> None:
        super().__init__(call, job_id, name, key, resource, recipients)
        self._chunks = chunks
        self._number = LISTING_NUMBER if name == CATALOG else int(name.removeprefix(CONTENT_PREFIX))
        self._lengths: dict[int, int] = {}
        chunks.set_table_key(self._number, key.key_id)

    def stored_form(self, index: int, data: Buffer) -> Buffer | None:
        """See ObjectUpload."""
        identity = self._key.chunk_id(data)
        if (held := self._chunks.find(identity)) is not None:
            digest, length, key_id = held
            linked = LinkedChunk(index=index, length=length, checksum=digest.hex(), checksum_algorithm="SHA256")
            request = LinkChunks(backup_job_id=self.job_id, upload_id=self.open(), chunks=[linked])
            if not self._call.call(request).missing:
                self.note(index, data, identity)
                super().set(index, digest)
                self._chunks.add(self._number, identity, digest, length, key_id)
                return None
        sealed = super().stored_form(index, data)
        self._lengths[index] = len(sealed or b"")
        return sealed

    def set(self, index: int, digest: bytes) -> None:
        """See ObjectUpload."""
        super().set(index, digest)
        if (length := self._lengths.pop(index, None)) is not None:
            self._chunks.add(self._number, self.table[index].chunk_id, digest, length, self._key.key_id)


def choose_policy(call: Call, resource: str, base: Archive | WriteOnlyBase | None, job_id: str) -> PlainPolicy:
    """Return the policy of a run of this resource, by the key that `call` carries and by the base of the run.

    Raises ConfigurationError if the key does not suffice for the run, and KeyUnavailableError if the base is sealed
    under a key that must not be trusted with new data.
    """
    if not isinstance(call, KeyedCall):
        return PlainPolicy()
    key = call.key
    if key is None:
        raise ConfigurationError("the first backup needs a key file", hint="give it with --key FILE")
    if isinstance(base, WriteOnlyBase):
        return WriteOnlyPolicy(key, resource, base)
    if base is not None and base.sealing is not None:
        sealing = base.sealing
        if sealing.head.resource != resource:
            raise KeyUnavailableError(f"the store returned the archive of another resource as the base of {resource!a}")
        if not sealing.is_owned:
            raise KeyUnavailableError(
                "nothing proves that the holder of this key started this archive: the store could have forged it",
                hint="if you know that it is genuine, `cryo agent-key accept` trusts it; or give another --resource",
            )
        recipients = [(PublicKey(each.public), each.name) for each in sealing.head.recipients]
        return SealedPolicy(sealing.active, resource, recipients)
    if not isinstance(key, AgentKey):
        raise ConfigurationError(
            "a public key can back up only files and folders", hint="give the whole key for a stream or a disk"
        )
    return SealedPolicy(ArchiveKey.first(key.archive_seed, resource, job_id), resource, [(key, key.fingerprint)])
