"""SHA-256 digests: their two text forms, payloads that carry their digest, and SUMMARY checksums.

Inside Cryostore a digest is 32 raw bytes; only its edges use text. See `Backup Storage API` B.3 (checksum text) and B.4
(SUMMARY).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

DIGEST_BYTES = 32
HEX_PATTERN = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
BASE64_PATTERN = re.compile(r"[A-Za-z0-9+/]{43}=", re.ASCII)

Buffer = bytes | bytearray | memoryview


class Form(IntEnum):
    """The text form of a digest. The values are part of the storage format."""

    BASE64 = 0
    HEX = 1


class Checksum(NamedTuple):
    """A digest and the text form that its writer used, so that answers repeat that form."""

    digest: bytes
    form: Form

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Read 64 hex digits or 44 characters of base64.

        Raises ValueError, whose message states the rule, for any other text, non-canonical base64 included.
        """
        if HEX_PATTERN.fullmatch(text):
            return cls(bytes.fromhex(text), Form.HEX)
        if BASE64_PATTERN.fullmatch(text):
            digest = binascii.a2b_base64(text)
            if base64.b64encode(digest).decode() == text:
                return cls(digest, Form.BASE64)
        raise ValueError("a SHA-256 checksum is 64 hex digits or 44 characters of base64")

    def text(self) -> str:
        """The digest in its text form. Hex is lower case."""
        return digest_text(self.digest, self.form)


def digest_text(digest: bytes, form: int) -> str:
    """Write 32 raw bytes in a text form. Hex is lower case."""
    return digest.hex() if form == Form.HEX else base64.b64encode(digest).decode()


def sha256(data: Buffer) -> bytes:
    """The SHA-256 of some bytes, as 32 raw bytes. Releases the GIL for more than 2 KiB."""
    return hashlib.sha256(data).digest()


def summary(digests: Iterable[bytes]) -> bytes:
    """SUMMARY (B.4): the SHA-256 of the raw digests of chunks, in ascending order of index."""
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(digest)
    return whole.digest()


class Payload:
    """The bytes of a request or response body. Their SHA-256 is computed once, at the first use.

    The bytes are not copied: the caller must not change them afterwards.
    """

    def __init__(self, data: Buffer = b"", *, sha256: bytes | None = None) -> None:
        self.data = data
        if sha256 is not None:
            self.__dict__["sha256"] = sha256

    def __len__(self) -> int:
        return len(self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Payload) and bytes(self.data) == bytes(other.data)

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"Payload({len(self.data)} bytes)"

    @cached_property
    def sha256(self) -> bytes:
        """The digest of the bytes, computed at the first use."""
        return sha256(self.data)
