"""Data keys and AES-256-GCM: everything that depends on a secret, and the only user of the cipher library.

Rule of this file: no secret ever appears in a repr, a message or a log.
"""

from __future__ import annotations

import hmac
import os
import threading
from functools import lru_cache, partial

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cryostore.core.digest import DIGEST_BYTES, Buffer
from cryostore.core.errors import DamagedDataError
from cryostore.core.process_resources import unfilled

KEY_ID_BYTES = 16
SECRET_BYTES = 32
SALT_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16
SALT_USES_MAX = 1 << 20  # far below the 2^32 random nonces that AES-GCM allows one key
CIPHERS_KEPT = 64

SEAL_LABEL = b"cryostore envelope 1"
MASK_LABEL = b"cryostore digest mask 1"


class DataKey:
    """The key of one vault: a public id of 16 bytes, and 32 secret bytes.

    Keep the object while the vault is in use: it caches the ciphers of recent salts.
    """

    def __init__(self, key_id: bytes, secret: bytes) -> None:
        if len(key_id) != KEY_ID_BYTES or len(secret) != SECRET_BYTES:
            raise ValueError(f"a data key is {KEY_ID_BYTES} bytes of id and {SECRET_BYTES} of secret")
        self.key_id = key_id
        self.secret = secret
        self.cipher = lru_cache(maxsize=CIPHERS_KEPT)(partial(EnvelopeCipher, secret))

    @classmethod
    def generate(cls, key_id: bytes) -> DataKey:
        """Return a new key with this id."""
        return cls(key_id, os.urandom(SECRET_BYTES))

    def __repr__(self) -> str:
        return f"DataKey({self.key_id.hex()})"


class EnvelopeCipher:
    """The keys that one data key and one salt derive: an AES-256-GCM key, and a key that masks digests.

    Key derivation per salt keeps random nonces safe however many chunks a vault has. Safe to use from many threads.
    """

    __slots__ = ("_aead", "_mask_key")

    def __init__(self, secret: bytes, salt: bytes) -> None:
        self._aead = AESGCM(hmac.digest(secret, SEAL_LABEL + salt, "sha256"))
        self._mask_key = hmac.digest(secret, MASK_LABEL + salt, "sha256")

    def seal_into(self, nonce: bytes, plain: Buffer, associated: bytes, target: Buffer) -> None:
        """Encrypt `plain` into `target`, which is TAG_BYTES longer."""
        self._aead.encrypt_into(nonce, plain, associated, target)

    def open(self, nonce: bytes, sealed: Buffer, associated: bytes) -> bytearray:
        """Return the decrypted bytes. Raises DamagedDataError."""
        plain = unfilled(max(len(sealed) - TAG_BYTES, 0))  # returned only if it was decrypted to the end
        try:
            self._aead.decrypt_into(nonce, sealed, associated, plain)
        except InvalidTag:
            raise DamagedDataError("bytes, key and digest do not belong together") from None
        return plain

    def mask(self, digest: bytes, nonce: bytes) -> bytes:
        """Mask a digest, so that it is unreadable without the key; unmask a masked one. Both are the same operation."""
        pad = hmac.digest(self._mask_key, nonce, "sha256")
        return (int.from_bytes(digest, "big") ^ int.from_bytes(pad, "big")).to_bytes(DIGEST_BYTES, "big")


class Salts:
    """Random salts for one writer, each used SALT_USES_MAX times. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses = 0
        self._salt = os.urandom(SALT_BYTES)

    def current(self) -> bytes:
        """Return the salt for the next envelope."""
        with self._lock:
            if self._uses == SALT_USES_MAX:
                self._uses = 0
                self._salt = os.urandom(SALT_BYTES)
            self._uses += 1
            return self._salt


def new_nonce() -> bytes:
    """Return a random nonce."""
    return os.urandom(NONCE_BYTES)


def seal_small(secret: bytes, plain: bytes, associated: bytes) -> bytes:
    """Encrypt a few bytes, such as a key, with a master secret; return nonce, ciphertext and tag."""
    nonce = new_nonce()
    return nonce + AESGCM(secret).encrypt(nonce, plain, associated)


def open_small(secret: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Reverse `seal_small`. Raises DamagedDataError."""
    try:
        return AESGCM(secret).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
    except (InvalidTag, ValueError):
        raise DamagedDataError("bytes and key do not belong together") from None
