"""Agent key: 32 secret bytes from which all other secrets of the agent are derived, or the public part of such a key.

A whole key reads and writes archives. The public part alone writes archives and cannot read them.
"""

from __future__ import annotations

from functools import cached_property

from cryostore.agent.encryption.cipher import (
    PUBLIC_BYTES,
    SECRET_BYTES,
    derive,
    keyed_digest,
    public_of,
    random_bytes,
    seal_to,
    unseal_with,
)
from cryostore.core.digest import sha256
from cryostore.core.errors import KeyUnavailableError

PRIVATE_LABEL = b"cryostore agent x25519 1"
OWNER_LABEL = b"cryostore agent owner 1"
ARCHIVE_LABEL = b"cryostore agent archives 1"
NAME_LABEL = b"cryostore agent resource name 1"
FINGERPRINT_BYTES = 8


class PublicKey:
    """The public part of an agent key: encrypts for the holder of the whole key."""

    def __init__(self, public: bytes) -> None:
        if len(public) != PUBLIC_BYTES:
            raise ValueError(f"a public key is {PUBLIC_BYTES} bytes")
        self.public = public

    @property
    def fingerprint(self) -> str:
        """A short text that tells keys apart, for people and for the names of objects."""
        return sha256(self.public)[:FINGERPRINT_BYTES].hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.fingerprint})"

    def seal_for(self, plain: bytes, info: bytes) -> bytes:
        """Encrypt `plain` for the holder of the whole key, bound to `info`."""
        return seal_to(self.public, plain, info)


class AgentKey(PublicKey):
    """A whole agent key. Its repr shows only the fingerprint."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SECRET_BYTES:
            raise ValueError(f"an agent key is {SECRET_BYTES} bytes")
        self.seed = seed
        """The secret itself. Only the writers of key files and of paper may read it."""
        super().__init__(public_of(self._private))

    @classmethod
    def generate(cls) -> AgentKey:
        """A new random key."""
        return cls(random_bytes(SECRET_BYTES))

    @cached_property
    def _private(self) -> bytes:
        return derive(self.seed, PRIVATE_LABEL)

    @cached_property
    def archive_seed(self) -> bytes:
        """The secret from which the first key of each archive is derived."""
        return derive(self.seed, ARCHIVE_LABEL)

    def open_sealed(self, sealed: bytes, info: bytes) -> bytes:
        """Decrypt the result of `seal_for`. Raises DamagedDataError."""
        return unseal_with(self._private, sealed, info)

    def owner_tag(self, data: bytes) -> bytes:
        """A keyed digest of `data`.

        It proves that the holder of the whole key, not only of its public part, made it.
        """
        return keyed_digest(derive(self.seed, OWNER_LABEL), data)

    def opaque_name(self, text: str) -> str:
        """A name that stands for `text` without showing it. Equal texts give equal names."""
        digest = keyed_digest(derive(self.seed, NAME_LABEL), text.encode("utf-8", "surrogateescape"))
        return f"sealed-{digest.hex()[:16]}"


def require_whole_key(key: PublicKey) -> AgentKey:
    """The key, if it is a whole one. Raises KeyUnavailableError if it is only a public part."""
    if isinstance(key, AgentKey):
        return key
    raise KeyUnavailableError(
        "this is the public part of a key: it writes archives and cannot read them",
        hint="give the whole key file with --key, on a machine that may read",
    )
