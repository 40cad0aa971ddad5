"""The key of an archive: what its chunks are sealed with, and by what it knows its pieces again.

Rotation makes a new one; `identity` goes on, so that the pieces of older chunks are still known.
"""

from __future__ import annotations

from functools import cached_property

from cryostore.agent.keys.cipher import KEY_ID_BYTES, SECRET_BYTES, derive, keyed_digest, random_bytes

SEAL_LABEL = b"cryostore agent seal 1"
NONCE_LABEL = b"cryostore agent nonce 1"
IDENTITY_LABEL = b"cryostore agent identity 1"
CUT_LABEL = b"cryostore agent cut points 1"
RESOURCE_LABEL = b"cryostore agent archive 1\0"


class ArchiveKey:
    """An id, and two secrets that never show in a repr: `secret` seals, `identity` names pieces and cuts."""

    def __init__(self, key_id: bytes, secret: bytes, identity: bytes) -> None:
        if (len(key_id), len(secret), len(identity)) != (KEY_ID_BYTES, SECRET_BYTES, SECRET_BYTES):
            raise ValueError("an archive key is an id of 16 bytes and two secrets of 32")
        self.key_id = key_id
        self.secret = secret
        self.identity = identity

    @classmethod
    def generate(cls, identity: bytes | None = None) -> ArchiveKey:
        """A new key; with the `identity` of an older one it knows its pieces."""
        return cls(random_bytes(KEY_ID_BYTES), random_bytes(SECRET_BYTES), identity or random_bytes(SECRET_BYTES))

    @classmethod
    def first(cls, seed: bytes, resource: str, job_id: str) -> ArchiveKey:
        """The key that an agent key begins an archive with: the same one in one job, so that a killed run goes on."""
        label = RESOURCE_LABEL + job_id.encode() + b"\0" + resource.encode()
        data = derive(seed, label, KEY_ID_BYTES + 2 * SECRET_BYTES)
        secrets = data[KEY_ID_BYTES:]
        return cls(data[:KEY_ID_BYTES], secrets[:SECRET_BYTES], secrets[SECRET_BYTES:])

    def __repr__(self) -> str:
        return f"ArchiveKey({self.key_id.hex()})"

    @cached_property
    def _sealing(self) -> bytes:
        return derive(self.secret, SEAL_LABEL)

    @cached_property
    def _nonces(self) -> bytes:
        return derive(self.secret, NONCE_LABEL)

    @cached_property
    def _identity(self) -> bytes:
        return derive(self.identity, IDENTITY_LABEL)

    @cached_property
    def cut_secret(self) -> bytes:
        """What decides where content is cut."""
        return derive(self.identity, CUT_LABEL)

    def piece_id(self, plain: bytes | bytearray | memoryview) -> bytes:
        """By what a piece is known again: a digest that only this key makes."""
        return keyed_digest(self._identity, plain)

    def place_key(self, place: bytes) -> bytes:
        """The AES key for what is at one place alone."""
        return keyed_digest(self._sealing, place)

    def nonce_key(self) -> bytes:
        """The key that nonces are made with."""
        return self._nonces
