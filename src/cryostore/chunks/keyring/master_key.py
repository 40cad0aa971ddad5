"""Master keys, and the wrapped form of what they protect (docs/reference/formats.md, "Wrapped key")."""

from __future__ import annotations

import hmac
import os

from cryostore.chunks.cipher import SECRET_BYTES, open_small, seal_small
from cryostore.core.errors import DamagedDataError, KeyUnavailableError

MAGIC = b"CRYW"
VERSION = 1
KEY_ID_BYTES_MAX = 255


class MasterKey:
    """A master key. The repr shows no secret."""

    __slots__ = ("key_id", "secret")

    def __init__(self, key_id: str, secret: bytes) -> None:
        if not 1 <= len(key_id.encode()) <= KEY_ID_BYTES_MAX or len(secret) != SECRET_BYTES:
            raise ValueError(f"a master key is an id of 1 to {KEY_ID_BYTES_MAX} bytes and {SECRET_BYTES} secret bytes")
        self.key_id = key_id
        self.secret = secret
        """Only writers of a keyring document read it."""

    @classmethod
    def generate(cls, key_id: str) -> MasterKey:
        """Return a new key with this id."""
        return cls(key_id, os.urandom(SECRET_BYTES))

    def __repr__(self) -> str:
        return f"MasterKey({self.key_id!r})"

    def is_same(self, other: MasterKey) -> bool:
        """Whether both keys are equal."""
        return self.key_id == other.key_id and hmac.compare_digest(self.secret, other.secret)

    def wrap(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt `plain`, bound to `context`: only the same context unwraps it."""
        head = _wrapped_head(self.key_id)
        return head + seal_small(self.secret, plain, head + context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Reverse `wrap`. Raises KeyUnavailableError if key, bytes or context differ."""
        head = _wrapped_head(self.key_id)
        try:
            if wrapped.startswith(head):
                return open_small(self.secret, wrapped[len(head) :], head + context)
        except DamagedDataError as error:
            raise KeyUnavailableError(f"master key {self.key_id} does not open this: {error.message}") from None
        raise KeyUnavailableError(f"master key {self.key_id} did not wrap this")


def wrapped_key_id(wrapped: bytes) -> str:
    """Return the id of the master key that wrapped these bytes.

    Raises KeyUnavailableError if they are no wrapped key.
    """
    start = len(MAGIC) + 2
    if len(wrapped) < start or not wrapped.startswith(MAGIC + bytes([VERSION])):
        raise KeyUnavailableError("this is not a wrapped key, or one of a later format")
    end = start + wrapped[start - 1]
    try:
        return wrapped[start:end].decode()  # if cut short, a name that no key has
    except UnicodeDecodeError:
        raise KeyUnavailableError("this is not a wrapped key") from None


def _wrapped_head(key_id: str) -> bytes:
    name = key_id.encode()
    return MAGIC + bytes([VERSION, len(name)]) + name
