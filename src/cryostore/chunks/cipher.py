"""Keys and AES-256-GCM: everything that depends on a secret, and the only home of the cipher library.

The rule of this file: no secret ever appears in a repr, a message or a log.
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
from cryostore.core.memory import unfilled

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
    """The key of one vault: 16 bytes that name it, 32 that are secret.

    Keep the object for as long as the vault is in use: it remembers the ciphers of recent salts.
    """

    def __init__(self, key_id: bytes, secret: bytes) -> None:
        if len(key_id) != KEY_ID_BYTES or len(secret) != SECRET_BYTES:
            raise ValueError(f"a data key is {KEY_ID_BYTES} bytes of id and {SECRET_BYTES} of secret")
        self.key_id = key_id
        self.secret = secret
        self.cipher = lru_cache(maxsize=CIPHERS_KEPT)(partial(EnvelopeCipher, secret))

    @classmethod
    def generate(cls, key_id: bytes) -> DataKey:
        """A new key under this id."""
        return cls(key_id, os.urandom(SECRET_BYTES))

    def __repr__(self) -> str:
        return f"DataKey({self.key_id.hex()})"


class EnvelopeCipher:
    """What one data key and one salt make: an AES-256-GCM key and a key that masks digests.

    Deriving per salt keeps random nonces safe however many chunks a vault has. Safe to use from many threads.
    """

    __slots__ = ("_aead", "_mask_key")

    def __init__(self, secret: bytes, salt: bytes) -> None:
        self._aead = AESGCM(hmac.digest(secret, SEAL_LABEL + salt, "sha256"))
        self._mask_key = hmac.digest(secret, MASK_LABEL + salt, "sha256")

    def seal_into(self, nonce: bytes, plain: Buffer, associated: bytes, target: Buffer) -> None:
        """Encrypt `plain` into `target`, which is TAG_BYTES longer."""
        self._aead.encrypt_into(nonce, plain, associated, target)

    def open(self, nonce: bytes, sealed: Buffer, associated: bytes) -> bytearray:
        """Decrypt, or raise DamagedDataError."""
        plain = unfilled(max(len(sealed) - TAG_BYTES, 0))  # nobody gets it unless it is decrypted to the end
        try:
            self._aead.decrypt_into(nonce, sealed, associated, plain)
        except InvalidTag:
            raise DamagedDataError("bytes, key and digest do not belong together") from None
        return plain

    def mask(self, digest: bytes, nonce: bytes) -> bytes:
        """Hide a digest from whoever lacks the key, or uncover a hidden one: the same operation."""
        pad = hmac.digest(self._mask_key, nonce, "sha256")
        return (int.from_bytes(digest, "big") ^ int.from_bytes(pad, "big")).to_bytes(DIGEST_BYTES, "big")


class Salts:
    """Random salts for one writer, each given out SALT_USES_MAX times. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses = 0
        self._salt = os.urandom(SALT_BYTES)

    def current(self) -> bytes:
        """The salt of the next envelope."""
        with self._lock:
            if self._uses == SALT_USES_MAX:
                self._uses = 0
                self._salt = os.urandom(SALT_BYTES)
            self._uses += 1
            return self._salt


def new_nonce() -> bytes:
    """A random nonce."""
    return os.urandom(NONCE_BYTES)


def seal_small(secret: bytes, plain: bytes, associated: bytes) -> bytes:
    """Nonce, ciphertext and tag of a few bytes, such as a key, under a master secret."""
    nonce = new_nonce()
    return nonce + AESGCM(secret).encrypt(nonce, plain, associated)


def open_small(secret: bytes, sealed: bytes, associated: bytes) -> bytes:
    """The inverse of `seal_small`, or DamagedDataError."""
    try:
        return AESGCM(secret).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
    except (InvalidTag, ValueError):
        raise DamagedDataError("bytes and key do not belong together") from None
