"""A keyring as lines of text to be printed, locked away, and typed in again (docs/formats.md, "Keyring on paper").

Each line has a checksum of its own, so that a mistake in typing is found in its line.
"""

from __future__ import annotations

import base64

from cryostore.chunks.keyring.document import DOCUMENT_BYTES_MAX, Document
from cryostore.chunks.keyring.master_key import MasterKey
from cryostore.core.digest import sha256
from cryostore.core.errors import ConfigurationError

TITLE = "CRYOSTORE KEYRING 1"
LINE_BYTES = 20
GROUP_CHARACTERS = 4
LINE_CHECK_CHARACTERS = 4
WHOLE_CHECK_CHARACTERS = 16
SECRET_BYTES = 32
MISREAD = str.maketrans("018", "OIB")
"""Digits that base32 does not have, and the letters they look like."""
COMMENT = (
    "# Whoever has these lines and the data can read every backup; without them, or the keyring file, nobody can.",
    "# To put them back: type all lines from CRYOSTORE KEYRING on into a file, then: cryo key import FILE",
    "# The letters are A to Z and the digits 2 to 7. Spaces and the size of letters do not matter.",
)


def print_paper(document: Document) -> str:
    """The keyring as text for people."""
    data = _pack(document)
    pieces = [data[start : start + LINE_BYTES] for start in range(0, len(data), LINE_BYTES)]
    lines = [
        f"{number:02d}  {_grouped(_text(piece) + _line_check(number, piece))}"
        for number, piece in enumerate(pieces, start=1)
    ]
    return "\n".join((*COMMENT, TITLE, *lines, f"END {_grouped(_whole_check(data))}")) + "\n"


def is_paper(data: bytes) -> bool:
    """Whether this looks like `print_paper`'s text rather than a keyring document."""
    return any(line.strip().upper().startswith(b"CRYOSTORE KEYRING") for line in data[:DOCUMENT_BYTES_MAX].splitlines())


def read_paper(data: bytes) -> Document:
    """The keyring of `print_paper`'s text as somebody typed it in.

    Raises ConfigurationError, which names the line that is wrong and never repeats it.
    """
    lines = [line.strip().upper() for line in data[:DOCUMENT_BYTES_MAX].decode("ascii", "replace").splitlines()]
    start = next((place for place, line in enumerate(lines) if line.startswith("CRYOSTORE KEYRING")), None)
    if start is None or " ".join(lines[start].split()) != TITLE:
        raise ConfigurationError(f"there is no line {TITLE!r}, with which the lines of a keyring begin")
    content = bytearray()
    for number, line in enumerate(filter(None, lines[start + 1 :]), start=1):
        label, _, rest = line.partition(" ")
        text = "".join(rest.split()).translate(MISREAD)
        if label == "END":
            if text != _whole_check(bytes(content)):
                raise ConfigurationError("the lines do not fit the line END", hint="is a line missing before it?")
            return _unpack(bytes(content))
        content += _read_line(number, label, text)
    raise ConfigurationError("the line END is missing", hint="it is the last one")


def _read_line(number: int, label: str, text: str) -> bytes:
    if not label.isdigit() or int(label) != number:
        raise ConfigurationError(f"line {number:02d} is missing, or out of its place")
    piece, check = text[:-LINE_CHECK_CHARACTERS], text[-LINE_CHECK_CHARACTERS:]
    try:
        data = base64.b32decode(piece + "=" * (-len(piece) % 8))
    except ValueError:
        data = b""
    if not data or check != _line_check(number, data) or piece != _text(data):
        raise ConfigurationError(f"line {number:02d} has a mistake", hint="compare it with the paper, letter by letter")
    return data


def _pack(document: Document) -> bytes:
    """Every key, the active one first: the length of its id, the id, the secret."""
    others = [key for name, key in sorted(document.keys.items()) if name != document.active.key_id]
    names = [(key.key_id.encode(), key.secret) for key in (document.active, *others)]
    return b"".join(bytes([len(name)]) + name + secret for name, secret in names)


def _unpack(data: bytes) -> Document:
    keys: list[MasterKey] = []
    try:
        while data:
            end = 1 + data[0]
            keys.append(MasterKey(data[1:end].decode(), data[end : end + SECRET_BYTES]))
            data = data[end + SECRET_BYTES :]
        return Document(keys[0], {key.key_id: key for key in keys})
    except (ValueError, IndexError):
        pass  # outside of the block, so that no cause that quotes the keys goes with the error
    raise ConfigurationError("the lines hold no keyring")


def _text(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def _line_check(number: int, piece: bytes) -> str:
    return _text(sha256(b"keyring line %d\0" % number + piece))[:LINE_CHECK_CHARACTERS]


def _whole_check(data: bytes) -> str:
    return _text(sha256(b"keyring\0" + data))[:WHOLE_CHECK_CHARACTERS]


def _grouped(text: str) -> str:
    return " ".join(text[start : start + GROUP_CHARACTERS] for start in range(0, len(text), GROUP_CHARACTERS))
