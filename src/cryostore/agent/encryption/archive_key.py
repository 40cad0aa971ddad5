"""Archive key: encrypts the chunks of an archive and derives their chunk ids.

A rotation makes a new key but keeps `id_secret`, so that the chunk ids of older chunks stay valid.
"""

from __future__ import annotations

from functools import cached_property

from cryostore.agent.encryption.cipher import KEY_ID_BYTES, SECRET_BYTES, derive, keyed_digest, random_bytes

SEAL_LABEL = b"cryostore agent seal 1"
NONCE_LABEL = b"cryostore agent nonce 1"
CHUNK_ID_LABEL = b"cryostore agent identity 1"
CUT_LABEL = b"cryostore agent cut points 1"
RESOURCE_LABEL = b"cryostore agent archive 1\0"


class ArchiveKey:
    """A key id and two secrets: `secret` encrypts, `id_secret` derives chunk ids and cut points.

    The repr shows only the key id.
    """

    def __init__(self, key_id: bytes, secret: bytes, id_secret: bytes) -> None:
        if (len(key_id), len(secret), len(id_secret)) != (KEY_ID_BYTES, SECRET_BYTES, SECRET_BYTES):
            raise ValueError("an archive key is an id of 16 bytes and two secrets of 32")
        self.key_id = key_id
        self.secret = secret
        self.id_secret = id_secret

    @classmethod
    def generate(cls, id_secret: bytes | None = None) -> ArchiveKey:
        """A new random key. With the `id_secret` of an older key, it derives the same chunk ids."""
        return cls(random_bytes(KEY_ID_BYTES), random_bytes(SECRET_BYTES), id_secret or random_bytes(SECRET_BYTES))

    @classmethod
    def first(cls, seed: bytes, resource: str, job_id: str) -> ArchiveKey:
        """The first key of an archive, derived from an agent key's `seed`.

        It is the same each time within one job, so that a killed run can be resumed.
        """
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
    def _chunk_ids(self) -> bytes:
        return derive(self.id_secret, CHUNK_ID_LABEL)

    @cached_property
    def cut_secret(self) -> bytes:
        """The secret that decides the cut points of content."""
        return derive(self.id_secret, CUT_LABEL)

    def chunk_id(self, plain: bytes | bytearray | memoryview) -> bytes:
        """A keyed digest of plain bytes, which identifies them and which only this key can compute."""
        return keyed_digest(self._chunk_ids, plain)

    def chunk_key(self, context: bytes) -> bytes:
        """The AES key that encrypts only the chunk of this context."""
        return keyed_digest(self._sealing, context)

    def nonce_key(self) -> bytes:
        """The key from which nonces are derived."""
        return self._nonces
