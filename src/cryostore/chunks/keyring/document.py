"""Keyring documents: all master keys of a keyring as JSON (docs/reference/formats.md, "Keyring file").

Rule of this file: no error ever repeats a part of a document.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryostore.chunks.keyring.master_key import MasterKey

DOCUMENT_BYTES_MAX = 1 << 20
COMMENT = (
    "Master keys of a Cryostore. Whoever has this file and the data can read every backup; without it nobody can, "
    "and no backup can be restored. Keep a copy in a safe place away from the data."
)


class NoDocumentError(ValueError):
    """The bytes are no keyring document. The message says no more, and there is no cause."""


@dataclass(frozen=True, slots=True)
class KeyringDocument:
    """Master keys by id, and the active one among them. The repr shows no secret."""

    active: MasterKey
    keys: Mapping[str, MasterKey]

    @classmethod
    def of_new_key(cls, key_id: str) -> KeyringDocument:
        """Return a document with one new key."""
        key = MasterKey.generate(key_id)
        return cls(key, {key_id: key})

    def with_new_key(self, key_id: str) -> KeyringDocument:
        """Return a document with one more key, which is the active one."""
        key = MasterKey.generate(key_id)
        return KeyringDocument(key, {**self.keys, key_id: key})

    def without(self, key_id: str) -> KeyringDocument:
        """Return a document without one key, which must not be the active one."""
        assert key_id != self.active.key_id
        return KeyringDocument(self.active, {name: key for name, key in self.keys.items() if name != key_id})

    def is_same(self, other: KeyringDocument) -> bool:
        """Whether both have the same keys, and the same active one."""
        return (
            self.active.key_id == other.active.key_id
            and self.keys.keys() == other.keys.keys()
            and all(key.is_same(other.keys[name]) for name, key in self.keys.items())
        )

    def encode(self) -> bytes:
        """Return the bytes of a keyring file."""
        keys = {name: base64.b64encode(key.secret).decode() for name, key in self.keys.items()}
        text = json.dumps({"comment": COMMENT, "active": self.active.key_id, "keys": keys}, indent=2) + "\n"
        return text.encode()


def decode(data: bytes) -> KeyringDocument:
    """Return the document that `encode` wrote. Raises NoDocumentError."""
    try:
        found: Any = json.loads(data, object_pairs_hook=_once) if len(data) <= DOCUMENT_BYTES_MAX else None
        keys = {name: MasterKey(name, base64.b64decode(text, validate=True)) for name, text in found["keys"].items()}
        return KeyringDocument(keys[found["active"]], keys)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        pass  # outside of the block, so that no cause that quotes the document goes with the error
    raise NoDocumentError("not a keyring document")


def decode_text(data: bytes) -> KeyringDocument:
    """Decode a document as JSON, or as base64 of it, as variables and key services hold it.

    Raises NoDocumentError.
    """
    data = data.strip()
    if data.startswith(b"{"):
        return decode(data)
    try:
        plain = base64.b64decode(b"".join(data.split()), validate=True)
    except ValueError:
        plain = b""
    return decode(plain)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for a repeated name: of two keys with one id, either could be meant."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found
