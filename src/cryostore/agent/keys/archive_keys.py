"""The keys of an archive as one agent key opens them: its key objects read, and what each is worth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.keys.agent_key import AgentKey, PublicKey, whole
from cryostore.agent.keys.archive_key import ArchiveKey
from cryostore.agent.keys.key_object import PREFIX, is_key_name, unwrap
from cryostore.client import pages
from cryostore.core.errors import KeyUnavailableError
from cryostore.model.chunks import GetChunk
from cryostore.model.objects import BackupObject
from cryostore.model.operation import Call


@dataclass(slots=True)
class ArchiveKeys:
    """Archive keys by id. `owned` are those that carry the agent key's tag: nobody else can have made them."""

    keys: dict[bytes, ArchiveKey] = field(default_factory=dict)
    owned: set[bytes] = field(default_factory=set)


def is_sealed_archive(names: Iterable[str]) -> bool:
    """Whether an archive with objects of these names is sealed."""
    return any(is_key_name(name) for name in names)


def checked(names: Iterable[str], key: PublicKey | None) -> AgentKey | None:
    """The key for an archive with objects of these names; None if it is plain and no key was given.

    Raises KeyUnavailableError if it is sealed and there is no whole key, or if it is plain and there is one: whoever
    has a key would otherwise take what anybody wrote for what was sealed.
    """
    if is_sealed_archive(names):
        if key is None:
            raise KeyUnavailableError("this backup is encrypted", hint="give its key: --key FILE, or CRYO_KEY_FILE")
        return whole(key)
    if key is None:
        return None
    raise KeyUnavailableError(
        "this backup is not encrypted, and a key was given",
        hint="leave --key and CRYO_KEY_FILE out if it is the one you mean; if it should be encrypted, it is a forgery",
    )


def read_keys(
    call: Call, job_id: str, objects: dict[str, BackupObject], key: AgentKey, learned: ArchiveKeys
) -> ArchiveKeys:
    """What is wrapped for a key, and what was `learned` elsewhere. Raises KeyUnavailableError if there is nothing."""
    found = ArchiveKeys(dict(learned.keys), set(learned.owned))
    ending = f"-{key.fingerprint}"
    for name, entry in objects.items():
        if name.startswith(PREFIX) and name.endswith(ending):
            archive_key, is_owned = unwrap(object_bytes(call, job_id, entry), key)
            found.keys[archive_key.key_id] = archive_key
            if is_owned:
                found.owned.add(archive_key.key_id)
    if not found.keys:
        raise KeyUnavailableError(
            f"this backup is not encrypted for key {key.fingerprint}",
            hint="`cryo agent-key list` shows for which it is",
        )
    return found


def object_bytes(call: Call, job_id: str, entry: BackupObject) -> bytes:
    """The bytes of a small object. Raises ArchiveDamagedError unless it is one chunk as its checksum says."""
    chunks = list(pages.chunks(call, job_id, entry.object_token))
    if len(chunks) != 1:
        raise ArchiveDamagedError(f"object {entry.name} of the archive is damaged")
    payload = call.call(GetChunk(storage_job_id=job_id, chunk_token=chunks[0].chunk_token)).data
    return bytes(payload.data)
