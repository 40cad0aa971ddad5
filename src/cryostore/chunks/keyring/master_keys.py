"""Master keys, and keyring documents: all master keys of a keyring, as JSON and on paper.

On paper, a document is lines of text to print, lock away, and type in again. Formats: docs/reference/formats.md,
"Wrapped key", "Keyring file" and "Keyring on paper". Rule of this file: no error ever repeats a part of a document.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryostore.chunks.cipher import SECRET_BYTES, open_small, seal_small
from cryostore.core.errors import ConfigurationError, DamagedDataError, KeyUnavailableError
from cryostore.core.paper import Paper

MAGIC = b"CRYW"
VERSION = 1
KEY_ID_BYTES_MAX = 255
DOCUMENT_BYTES_MAX = 1 << 20
COMMENT = (
    "Master keys of a Cryostore. Whoever has this file and the data can read every backup; without it nobody can, "
    "and no backup can be restored. Keep a copy in a safe place away from the data."
)

PAPER_TITLE = "CRYOSTORE KEYRING 1"
PAPER = Paper(
    title=PAPER_TITLE,
    name="keyring",
    comment=(
        "# Whoever has these lines and the data can read every backup; without them, or the keyring file, nobody can.",
        "# To put them back: type all lines from CRYOSTORE KEYRING on into a file, then: cryo key import FILE",
        "# The letters are A to Z and the digits 2 to 7. Spaces and the size of letters do not matter.",
    ),
    line_bytes=20,
    end_characters=16,
)


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


def print_paper(document: KeyringDocument) -> str:
    """Return the keyring as printable text."""
    data = _paper_bytes(document)
    return PAPER.write(data, data)


def is_paper(data: bytes) -> bool:
    """Whether this looks like the output of `print_paper` rather than a keyring document."""
    return any(line.strip().upper().startswith(b"CRYOSTORE KEYRING") for line in data[:DOCUMENT_BYTES_MAX].splitlines())


def read_paper(data: bytes) -> KeyringDocument:
    """Return the keyring in text that was typed in. Raises ConfigurationError, as `Paper.read`."""
    return _of_paper_bytes(PAPER.read(data, lambda content: content))


def _paper_bytes(document: KeyringDocument) -> bytes:
    """Return every key, the active one first: the length of its id, the id, the secret."""
    others = [key for name, key in sorted(document.keys.items()) if name != document.active.key_id]
    names = [(key.key_id.encode(), key.secret) for key in (document.active, *others)]
    return b"".join(bytes([len(name)]) + name + secret for name, secret in names)


def _of_paper_bytes(data: bytes) -> KeyringDocument:
    keys: list[MasterKey] = []
    try:
        while data:
            end = 1 + data[0]
            keys.append(MasterKey(data[1:end].decode(), data[end : end + SECRET_BYTES]))
            data = data[end + SECRET_BYTES :]
        return KeyringDocument(keys[0], {key.key_id: key for key in keys})
    except (ValueError, IndexError):
        pass  # outside of the block, so that no cause that quotes the keys goes with the error
    raise ConfigurationError("the lines hold no keyring")
