"""Everything of the agent that depends on a secret: its only home of the cipher library.

`chunks.cipher` is the store's, and the agent does not see it: who gives a store no key must not need its code either.
The rule of this file: no secret ever appears in a repr, a message or a log.
Key derivation: docs/reference/archive.md.
"""

from __future__ import annotations

import hmac
import os
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cryostore.core.digest import Buffer
from cryostore.core.errors import ConfigurationError, DamagedDataError
from cryostore.core.memory import unfilled

SECRET_BYTES = 32
PUBLIC_BYTES = 32
KEY_ID_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16
SALT_BYTES = 16
SEALED_TO_BYTES = 32
"""What `seal_to` adds beside the tag: the sender's share of the key agreement."""

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class Stretching(NamedTuple):
    """How a passphrase becomes a key: Argon2id (RFC 9106) with these costs. The values go with what they protect."""

    salt: bytes
    iterations: int = 3
    lanes: int = 4
    memory_kib: int = 256 * 1024

    @property
    def work(self) -> int:
        """How many KiB it goes through."""
        return self.iterations * self.memory_kib


STRETCHING_MAX = Stretching(bytes(SALT_BYTES), 64, 64, 4 * 1024 * 1024)
"""What a file may ask for: more would only stop the machine."""


def random_bytes(length: int) -> bytes:
    """Bytes that nobody can guess."""
    return os.urandom(length)


def derive(secret: bytes, label: bytes, length: int = SECRET_BYTES) -> bytes:
    """Another secret for another purpose (HKDF-SHA256): it tells nothing of this one, nor of those for other labels."""
    return HKDF(hashes.SHA256(), length, None, label).derive(secret)


def keyed_digest(secret: bytes, data: Buffer) -> bytes:
    """HMAC-SHA256: who lacks the secret can neither make it nor check it."""
    return hmac.digest(secret, data, "sha256")


def is_same(left: bytes, right: bytes) -> bool:
    """Whether both are the same, in a time that does not tell where they differ."""
    return hmac.compare_digest(left, right)


def seal(secret: bytes, nonce: bytes, plain: Buffer, associated: bytes) -> bytes:
    """Ciphertext and tag (AES-256-GCM). One nonce must never serve two plaintexts under one secret."""
    return AESGCM(secret).encrypt(nonce, plain, associated)


def unseal(secret: bytes, nonce: bytes, sealed: Buffer, associated: bytes) -> bytearray:
    """The inverse of `seal`, or DamagedDataError."""
    plain = unfilled(max(len(sealed) - TAG_BYTES, 0))  # nobody gets it unless it is decrypted to the end
    try:
        AESGCM(secret).decrypt_into(nonce, sealed, associated, plain)
    except (InvalidTag, ValueError):
        raise DamagedDataError("bytes and key do not belong together") from None
    return plain


def public_of(private: bytes) -> bytes:
    """The public part of an X25519 key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def seal_to(public: bytes, plain: bytes, info: bytes) -> bytes:
    """Encrypt for whoever has the private part, bound to `info`: HPKE (RFC 9180), base mode, a new key each time."""
    try:
        return _SUITE.encrypt(plain, X25519PublicKey.from_public_bytes(public), info)
    except ValueError:
        raise ConfigurationError("this is no public key that anything can be encrypted for") from None


def unseal_with(private: bytes, sealed: bytes, info: bytes) -> bytes:
    """The inverse of `seal_to`, or DamagedDataError."""
    try:
        return _SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(private), info)
    except (InvalidTag, ValueError):
        raise DamagedDataError("bytes and key do not belong together") from None


def stretched(passphrase: bytes, stretching: Stretching) -> bytes:
    """The key that a passphrase makes. Takes time and memory on purpose."""
    return Argon2id(
        salt=stretching.salt,
        length=SECRET_BYTES,
        iterations=stretching.iterations,
        lanes=stretching.lanes,
        memory_cost=stretching.memory_kib,
    ).derive(passphrase)
