"""The agent's key: 32 secret bytes, from which all else is derived, or only the public part of such a key.

Whoever has the secret part reads archives; who has the public part alone can write archives that it cannot read.
"""

from __future__ import annotations

from functools import cached_property

from cryostore.agent.keys.cipher import (
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
    """The part that anything can be sealed for."""

    def __init__(self, public: bytes) -> None:
        if len(public) != PUBLIC_BYTES:
            raise ValueError(f"a public key is {PUBLIC_BYTES} bytes")
        self.public = public

    @property
    def fingerprint(self) -> str:
        """What tells keys apart, for people and for the names of objects."""
        return sha256(self.public)[:FINGERPRINT_BYTES].hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.fingerprint})"

    def seal_for(self, plain: bytes, info: bytes) -> bytes:
        """Seal for whoever has the secret part, bound to `info`."""
        return seal_to(self.public, plain, info)


class AgentKey(PublicKey):
    """A whole key. Its repr shows the fingerprint alone."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SECRET_BYTES:
            raise ValueError(f"an agent key is {SECRET_BYTES} bytes")
        self.seed = seed
        """For who writes key files and paper; nobody else asks for it."""
        super().__init__(public_of(self._private))

    @classmethod
    def generate(cls) -> AgentKey:
        """A new key."""
        return cls(random_bytes(SECRET_BYTES))

    @cached_property
    def _private(self) -> bytes:
        return derive(self.seed, PRIVATE_LABEL)

    @cached_property
    def archive_seed(self) -> bytes:
        """What the first keys of archives are derived from."""
        return derive(self.seed, ARCHIVE_LABEL)

    def open_sealed(self, sealed: bytes, info: bytes) -> bytes:
        """The inverse of `seal_for`, or DamagedDataError."""
        return unseal_with(self._private, sealed, info)

    def owner_tag(self, data: bytes) -> bytes:
        """What proves that the holder of this key, and no one with its public part alone, stands for `data`."""
        return keyed_digest(derive(self.seed, OWNER_LABEL), data)

    def opaque_name(self, text: str) -> str:
        """A name that stands for `text` and does not show it; always the same."""
        digest = keyed_digest(derive(self.seed, NAME_LABEL), text.encode("utf-8", "surrogateescape"))
        return f"sealed-{digest.hex()[:16]}"


def whole(key: PublicKey) -> AgentKey:
    """The key, if it is a whole one. Raises KeyUnavailableError."""
    if isinstance(key, AgentKey):
        return key
    raise KeyUnavailableError(
        "this is the public part of a key: it writes archives and cannot read them",
        hint="give the whole key file with --key, on a machine that may read",
    )
