"""Keyring on paper: lines of text to print, lock away, and type in again.

Format: docs/reference/formats.md, "Keyring on paper".
"""

from __future__ import annotations

from cryostore.chunks.keyring.document import DOCUMENT_BYTES_MAX, KeyringDocument
from cryostore.chunks.keyring.master_key import MasterKey
from cryostore.core.errors import ConfigurationError
from cryostore.core.paper import Paper

TITLE = "CRYOSTORE KEYRING 1"
SECRET_BYTES = 32
PAPER = Paper(
    title=TITLE,
    name="keyring",
    comment=(
        "# Whoever has these lines and the data can read every backup; without them, or the keyring file, nobody can.",
        "# To put them back: type all lines from CRYOSTORE KEYRING on into a file, then: cryo key import FILE",
        "# The letters are A to Z and the digits 2 to 7. Spaces and the size of letters do not matter.",
    ),
    line_bytes=20,
    end_characters=16,
)


def print_paper(document: KeyringDocument) -> str:
    """Return the keyring as printable text."""
    data = _pack(document)
    return PAPER.write(data, data)


def is_paper(data: bytes) -> bool:
    """Whether this looks like the output of `print_paper` rather than a keyring document."""
    return any(line.strip().upper().startswith(b"CRYOSTORE KEYRING") for line in data[:DOCUMENT_BYTES_MAX].splitlines())


def read_paper(data: bytes) -> KeyringDocument:
    """Return the keyring in text that was typed in. Raises ConfigurationError, as `Paper.read`."""
    return _unpack(PAPER.read(data, lambda content: content))


def _pack(document: KeyringDocument) -> bytes:
    """Return every key, the active one first: the length of its id, the id, the secret."""
    others = [key for name, key in sorted(document.keys.items()) if name != document.active.key_id]
    names = [(key.key_id.encode(), key.secret) for key in (document.active, *others)]
    return b"".join(bytes([len(name)]) + name + secret for name, secret in names)


def _unpack(data: bytes) -> KeyringDocument:
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
