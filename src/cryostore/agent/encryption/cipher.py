"""Cryptographic primitives of the agent. Its only home of the cipher library.

`chunks.cipher` belongs to the store, and the agent does not import it: an agent that gives the store no key must not
need the store's code either. The rule of this module: no secret ever appears in a repr, a message or a log. Key
derivation: docs/reference/archive.md.
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
from cryostore.core.process_resources import unfilled

SECRET_BYTES = 32
PUBLIC_BYTES = 32
KEY_ID_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16
SALT_BYTES = 16
SEALED_TO_BYTES = 32
"""The bytes that `seal_to` adds beside the tag: the sender's share of the key agreement."""

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class Stretching(NamedTuple):
    """The salt and costs of a key derivation from a passphrase by Argon2id (RFC 9106). A key file stores them."""

    salt: bytes
    iterations: int = 3
    lanes: int = 4
    memory_kib: int = 256 * 1024

    @property
    def work(self) -> int:
        """The memory that the derivation passes over in all its iterations, in KiB."""
        return self.iterations * self.memory_kib


STRETCHING_MAX = Stretching(bytes(SALT_BYTES), 64, 64, 4 * 1024 * 1024)
"""The highest costs that a key file may ask for. Higher ones would only stall the machine."""


def random_bytes(length: int) -> bytes:
    """Random bytes for secrets."""
    return os.urandom(length)


def derive(secret: bytes, label: bytes, length: int = SECRET_BYTES) -> bytes:
    """Derive a secret for one purpose (HKDF-SHA256). It reveals neither `secret` nor those of other labels."""
    return HKDF(hashes.SHA256(), length, None, label).derive(secret)


def keyed_digest(secret: bytes, data: Buffer) -> bytes:
    """Return an HMAC-SHA256. It can be neither computed nor checked without the secret."""
    return hmac.digest(secret, data, "sha256")


def is_same(left: bytes, right: bytes) -> bool:
    """Whether both are equal, in constant time."""
    return hmac.compare_digest(left, right)


def seal(secret: bytes, nonce: bytes, plain: Buffer, associated: bytes) -> bytes:
    """Encrypt with AES-256-GCM: ciphertext, then tag. One nonce must never serve two plaintexts under one secret."""
    return AESGCM(secret).encrypt(nonce, plain, associated)


def unseal(secret: bytes, nonce: bytes, sealed: Buffer, associated: bytes) -> bytearray:
    """Decrypt the result of `seal`. Raises DamagedDataError."""
    plain = unfilled(max(len(sealed) - TAG_BYTES, 0))  # returned only if it is decrypted to the end
    try:
        AESGCM(secret).decrypt_into(nonce, sealed, associated, plain)
    except (InvalidTag, ValueError):
        raise DamagedDataError("the bytes are damaged, or encrypted with another key") from None
    return plain


def public_of(private: bytes) -> bytes:
    """The public part of an X25519 key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def seal_to(public: bytes, plain: bytes, info: bytes) -> bytes:
    """Encrypt for the holder of the private part, bound to `info`.

    HPKE (RFC 9180), base mode, a fresh key each time.
    """
    try:
        return _SUITE.encrypt(plain, X25519PublicKey.from_public_bytes(public), info)
    except ValueError:
        raise ConfigurationError("this is not a valid public key") from None


def unseal_with(private: bytes, sealed: bytes, info: bytes) -> bytes:
    """Decrypt the result of `seal_to`. Raises DamagedDataError."""
    try:
        return _SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(private), info)
    except (InvalidTag, ValueError):
        raise DamagedDataError("the bytes are damaged, or encrypted with another key") from None


def stretched(passphrase: bytes, stretching: Stretching) -> bytes:
    """Derive a key from a passphrase. Takes time and memory on purpose."""
    return Argon2id(
        salt=stretching.salt,
        length=SECRET_BYTES,
        iterations=stretching.iterations,
        lanes=stretching.lanes,
        memory_cost=stretching.memory_kib,
    ).derive(passphrase)
