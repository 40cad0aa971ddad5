"""SHA-256 digests: their two texts, the payload that knows its own, and SUMMARY.

The rule of this file: a digest is 32 raw bytes inside Cryostore; text exists only at its edges. See
`Backup Storage API` B.3 (checksum text) and B.4 (SUMMARY).
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
    """How a digest is written as text. The values are part of the storage format."""

    BASE64 = 0
    HEX = 1


class Checksum(NamedTuple):
    """A digest and the text form its writer used, so that it can be given back in that form."""

    digest: bytes
    form: Form

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Read 64 hex digits or 44 characters of base64.

        Raises ValueError, which names the rule, for any other text, non-canonical base64 included.
        """
        if HEX_PATTERN.fullmatch(text):
            return cls(bytes.fromhex(text), Form.HEX)
        if BASE64_PATTERN.fullmatch(text):
            digest = binascii.a2b_base64(text)
            if base64.b64encode(digest).decode() == text:
                return cls(digest, Form.BASE64)
        raise ValueError("a SHA-256 checksum is 64 hex digits or 44 characters of base64")

    def text(self) -> str:
        """The digest in its form; hex is lower case."""
        return digest_text(self.digest, self.form)


def digest_text(digest: bytes, form: int) -> str:
    """Write 32 raw bytes in `form`; hex is lower case."""
    return digest.hex() if form == Form.HEX else base64.b64encode(digest).decode()


def sha256(data: Buffer) -> bytes:
    """The 32 raw bytes of SHA-256; releases the GIL for anything larger than 2 KiB."""
    return hashlib.sha256(data).digest()


def summary(digests: Iterable[bytes]) -> bytes:
    """SUMMARY (B.4): SHA-256 over the chunks' raw digests, in ascending index order."""
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(digest)
    return whole.digest()


class Payload:
    """Bytes that travel as a request or response body, with their SHA-256 computed once, when first asked for.

    The bytes are not copied; whoever makes a Payload must not change them afterwards.
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
        """The digest of the bytes, computed at the first call."""
        return sha256(self.data)
