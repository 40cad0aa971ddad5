"""Key objects: the archive keys of an archive, each wrapped for one recipient.

Byte table: docs/reference/archive.md. Each key object is a small object of its own, so that recovery points inherit it,
and a recipient can be added or removed without touching any other object. A lock is a key file under a passphrase that
is stored as an object of the archive; `keyed_call` opens it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryostore.agent.encryption.agent_key import AgentKey, PublicKey, require_whole_key
from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.cipher import KEY_ID_BYTES, SECRET_BYTES, is_same
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.client import pages
from cryostore.core.errors import DamagedDataError, KeyUnavailableError
from cryostore.model.chunks import GetChunk
from cryostore.model.objects import BackupObject
from cryostore.model.operation import Call

PREFIX = "key-"
LOCK_PREFIX = "lock-"
"""Name prefix of a lock."""
HEAD = struct.Struct("<4sBxxx16s")
"""magic, version, 0, key id"""
MAGIC = b"CRYK"
VERSION = 1
TAG_BYTES = 32
SEALED_BYTES = 2 * SECRET_BYTES + 32 + 16
OBJECT_BYTES = HEAD.size + SEALED_BYTES + TAG_BYTES
INFO = b"cryostore agent archive key 1"
NOT_OWNED = bytes(TAG_BYTES)


def key_object_name(key_id: bytes, recipient: PublicKey) -> str:
    """The name of the object that holds an archive key wrapped for a recipient."""
    return f"{PREFIX}{key_id.hex()}-{recipient.fingerprint}"


def lock_name(recipient: PublicKey) -> str:
    """The name of the object that holds a recipient's key file under a passphrase."""
    return f"{LOCK_PREFIX}{recipient.fingerprint}"


def is_key_name(name: str) -> bool:
    """Whether an object of this name is a key object or a lock."""
    return name.startswith((PREFIX, LOCK_PREFIX))


def is_sealed_archive(names: Iterable[str]) -> bool:
    """Whether an archive with objects of these names is sealed."""
    return any(is_key_name(name) for name in names)


def wrap(archive_key: ArchiveKey, recipient: PublicKey) -> bytes:
    """The bytes of a key object.

    If `recipient` is a whole key, the object carries its owner tag, which proves who wrapped it.
    """
    head = HEAD.pack(MAGIC, VERSION, archive_key.key_id)
    secrets = archive_key.secret + archive_key.id_secret
    tag = recipient.owner_tag(head + secrets) if isinstance(recipient, AgentKey) else NOT_OWNED
    return head + recipient.seal_for(secrets, INFO + head + recipient.public) + tag


def unwrap(data: bytes, key: AgentKey) -> tuple[ArchiveKey, bool]:
    """The archive key, and whether it carries the owner tag of `key`. Without the tag, anybody could have made it.

    Raises KeyUnavailableError if it is wrapped for another recipient, ArchiveDamagedError if it is no key object.
    """
    if len(data) != OBJECT_BYTES:
        raise ArchiveDamagedError("a key object is damaged")
    magic, version, key_id = HEAD.unpack_from(data)
    if (magic, version) != (MAGIC, VERSION) or len(key_id) != KEY_ID_BYTES:
        raise ArchiveDamagedError("a key object is damaged, or of a later format")
    head, sealed, tag = data[: HEAD.size], data[HEAD.size : -TAG_BYTES], data[-TAG_BYTES:]
    try:
        secrets = key.open_sealed(sealed, INFO + head + key.public)
    except DamagedDataError:
        raise KeyUnavailableError(f"key {key.fingerprint} does not open archive key {key_id.hex()}") from None
    found = ArchiveKey(key_id, secrets[:SECRET_BYTES], secrets[SECRET_BYTES:])
    if tag == NOT_OWNED:
        return found, False
    if not is_same(tag, key.owner_tag(head + secrets)):
        raise ArchiveDamagedError(f"archive key {key_id.hex()} does not carry the tag of key {key.fingerprint}")
    return found, True


@dataclass(slots=True)
class ArchiveKeys:
    """Archive keys by id. `owned` are the ids of those with the owner tag: only its holder can have made them."""

    keys: dict[bytes, ArchiveKey] = field(default_factory=dict)
    owned: set[bytes] = field(default_factory=set)


def read_archive_keys(
    call: Call, job_id: str, objects: dict[str, BackupObject], key: AgentKey, learned: ArchiveKeys
) -> ArchiveKeys:
    """The archive keys that are wrapped for `key`, together with those `learned` from other recovery points.

    Raises KeyUnavailableError if there are none.
    """
    found = ArchiveKeys(dict(learned.keys), set(learned.owned))
    ending = f"-{key.fingerprint}"
    for name, entry in objects.items():
        if name.startswith(PREFIX) and name.endswith(ending):
            archive_key, is_owned = unwrap(read_small_object(call, job_id, entry), key)
            found.keys[archive_key.key_id] = archive_key
            if is_owned:
                found.owned.add(archive_key.key_id)
    if not found.keys:
        raise KeyUnavailableError(
            f"this backup is not encrypted for key {key.fingerprint}",
            hint="`cryo agent-key list` shows its recipients",
        )
    return found


def require_fitting_key(names: Iterable[str], key: PublicKey | None) -> AgentKey | None:
    """The whole key for an archive with objects of these names; None if it is plain and no key was given.

    Raises KeyUnavailableError if the archive is sealed and there is no whole key. Raises it also if the archive is
    plain and there is a key: otherwise the holder of a key would take a forgery that anybody wrote for a sealed
    archive.
    """
    if is_sealed_archive(names):
        if key is None:
            raise KeyUnavailableError("this backup is encrypted", hint="give its key: --key FILE, or CRYO_KEY_FILE")
        return require_whole_key(key)
    if key is None:
        return None
    raise KeyUnavailableError(
        "this backup is not encrypted, but a key was given",
        hint="omit --key and CRYO_KEY_FILE if you expect a plain backup; if it should be encrypted, it is a forgery",
    )


def read_small_object(call: Call, job_id: str, entry: BackupObject) -> bytes:
    """The bytes of an object of one chunk. Raises ArchiveDamagedError if it has another number of chunks."""
    chunks = list(pages.chunks(call, job_id, entry.object_token))
    if len(chunks) != 1:
        raise ArchiveDamagedError(f"object {entry.name} of the archive is damaged")
    payload = call.call(GetChunk(storage_job_id=job_id, chunk_token=chunks[0].chunk_token)).data
    return bytes(payload.data)
