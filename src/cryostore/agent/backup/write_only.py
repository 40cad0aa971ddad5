"""Writing for a public key: each run seals under a key of its own that it forgets, and goes by what it remembers."""

from __future__ import annotations

from cryostore.agent.backup.policy import Sealed
from cryostore.agent.backup.remembered_base import CATALOG_NUMBER, RememberedBase, RememberedChunks, key_id_in
from cryostore.agent.encryption.agent_key import PublicKey
from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.key_objects import key_object_name, wrap
from cryostore.agent.encryption.sealed_object import Recipient
from cryostore.agent.header import CATALOG, CONTENT_PREFIX
from cryostore.agent.small_object import store_small
from cryostore.agent.upload.object_upload import ObjectUpload
from cryostore.agent.upload.sealed_upload import SealedUpload
from cryostore.core.digest import Buffer
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.model.operation import Call


class OneWay(Sealed):
    """The secrecy of such a run. Its key is nowhere but here, and in the archive for who has the whole agent key."""

    def __init__(self, public: PublicKey, resource: str, base: RememberedBase) -> None:
        super().__init__(ArchiveKey.generate(base.identity), resource, [(public, public.fingerprint)])
        self._public = public
        self._base = base

    def upload(self, call: Call, job_id: str, name: str) -> ObjectUpload:
        """See Plain."""
        recipients = [Recipient(self._public.public, self._public.fingerprint)]
        return OneWayUpload(call, job_id, name, self.key, self._resource, recipients, self._base.chunks)

    def store_keys(self, call: Call, job_id: str, old: dict[str, bytes], numbers: set[int]) -> dict[str, bytes]:
        """See Plain. The keys of runs of which nothing is left go."""
        used = self._base.chunks.used_keys(numbers)
        kept = {name: digest for name, digest in old.items() if key_id_in(name) in used}
        name = key_object_name(self.key.key_id, self._public)
        kept[name] = store_small(call, job_id, name, wrap(self.key, self._public))
        return kept


class OneWayUpload(SealedUpload):
    """As SealedUpload; chunks that runs before have stored are attached, though this one cannot open them."""

    def __init__(
        self,
        call: Call,
        job_id: str,
        name: str,
        key: ArchiveKey,
        resource: str,
        recipients: list[Recipient],
        chunks: RememberedChunks,
    ) -> None:
        super().__init__(call, job_id, name, key, resource, recipients)
        self._chunks = chunks
        self._number = CATALOG_NUMBER if name == CATALOG else int(name.removeprefix(CONTENT_PREFIX))
        self._lengths: dict[int, int] = {}
        chunks.begin(self._number, key.key_id)

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
                self._chunks.note(self._number, identity, digest, length, key_id)
                return None
        sealed = super().stored_form(index, data)
        self._lengths[index] = len(sealed or b"")
        return sealed

    def set(self, index: int, digest: bytes) -> None:
        """See ObjectUpload."""
        super().set(index, digest)
        if (length := self._lengths.pop(index, None)) is not None:
            self._chunks.note(self._number, self.table[index].chunk_id, digest, length, self._key.key_id)
