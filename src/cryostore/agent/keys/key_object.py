"""Key objects: the keys of an archive, each wrapped for each of its recipients. Byte table: docs/reference/archive.md.

A small object each, so that recovery points inherit them and a recipient comes or goes without touching anything else.
"""

from __future__ import annotations

import struct

from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.keys.agent_key import AgentKey, PublicKey
from cryostore.agent.keys.archive_key import ArchiveKey
from cryostore.agent.keys.cipher import KEY_ID_BYTES, SECRET_BYTES, is_same
from cryostore.core.errors import DamagedDataError, KeyUnavailableError

PREFIX = "key-"
LOCK_PREFIX = "lock-"
"""Of a key file under a passphrase that lies with the archive."""
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
    """The name of the object that has an archive key for a recipient."""
    return f"{PREFIX}{key_id.hex()}-{recipient.fingerprint}"


def lock_name(recipient: PublicKey) -> str:
    """The name of the object with a recipient's key file under a passphrase."""
    return f"{LOCK_PREFIX}{recipient.fingerprint}"


def is_key_name(name: str) -> bool:
    """Whether an object is a key object or a lock."""
    return name.startswith((PREFIX, LOCK_PREFIX))


def wrap(archive_key: ArchiveKey, recipient: PublicKey) -> bytes:
    """The bytes of a key object. With the recipient's whole key they carry its tag: proof of who wrapped it."""
    head = HEAD.pack(MAGIC, VERSION, archive_key.key_id)
    secrets = archive_key.secret + archive_key.identity
    tag = recipient.owner_tag(head + secrets) if isinstance(recipient, AgentKey) else NOT_OWNED
    return head + recipient.seal_for(secrets, INFO + head + recipient.public) + tag


def unwrap(data: bytes, key: AgentKey) -> tuple[ArchiveKey, bool]:
    """The archive key, and whether it carries the tag of `key`: without it, anybody could have made it.

    Raises KeyUnavailableError if it is wrapped for another, ArchiveDamagedError if it is no key object.
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
