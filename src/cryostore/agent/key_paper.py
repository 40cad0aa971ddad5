"""An agent key as lines of text to be printed, locked away, and typed in again (docs/archive.md, "Key on paper").

Each line has a checksum of its own, so that a mistake in typing is found in its line. The letters are those of base32.
"""

from __future__ import annotations

import base64

from cryostore.agent.agent_key import AgentKey
from cryostore.agent.cipher import SECRET_BYTES
from cryostore.core.digest import sha256
from cryostore.core.errors import ConfigurationError

TITLE = "CRYOSTORE AGENT KEY 1"
PAPER_BYTES_MAX = 64 * 1024
LINE_BYTES = 10
GROUP_CHARACTERS = 4
CHECK_CHARACTERS = 4
MISREAD = str.maketrans("018", "OIB")
"""Digits that base32 does not have, and the letters they look like."""
COMMENT = (
    "# Whoever has these lines and the archives can read them; without them, or the key file, nobody can.",
    "# To put them back: type all lines from CRYOSTORE AGENT KEY on into a file, then:",
    "# cryo init-key NEW-KEY-FILE --from-paper FILE",
    "# The letters are A to Z and the digits 2 to 7. Spaces and the size of letters do not matter.",
)


def print_paper(key: AgentKey) -> str:
    """The key as text for people."""
    pieces = [key.seed[start : start + LINE_BYTES] for start in range(0, SECRET_BYTES, LINE_BYTES)]
    checked = [_text(piece) + _check(number, piece) for number, piece in enumerate(pieces, 1)]
    lines = [f"{number:02d}  {_grouped(text)}" for number, text in enumerate(checked, 1)]
    return "\n".join((*COMMENT, TITLE, *lines, f"END {_grouped(_whole_check(key))}")) + "\n"


def read_paper(data: bytes) -> AgentKey:
    """The key of `print_paper`'s text as somebody typed it in.

    Raises ConfigurationError, which names the line that is wrong and never repeats it.
    """
    lines = [line.strip().upper() for line in data[:PAPER_BYTES_MAX].decode("ascii", "replace").splitlines()]
    start = next((place for place, line in enumerate(lines) if " ".join(line.split()) == TITLE), None)
    if start is None:
        raise ConfigurationError(f"there is no line {TITLE!r}, with which the lines of a key begin")
    content = bytearray()
    for number, line in enumerate(filter(None, lines[start + 1 :]), 1):
        label, _, rest = line.partition(" ")
        text = "".join(rest.split()).translate(MISREAD)
        if label == "END":
            key = AgentKey(bytes(content)) if len(content) == SECRET_BYTES else None
            if key is None or text != _whole_check(key):
                raise ConfigurationError("the lines do not fit the line END", hint="is a line missing before it?")
            return key
        content += _line(number, label, text)
    raise ConfigurationError("the line END is missing", hint="it is the last one")


def _line(number: int, label: str, text: str) -> bytes:
    if not label.isdigit() or int(label) != number:
        raise ConfigurationError(f"line {number:02d} is missing, or out of its place")
    piece, check = text[:-CHECK_CHARACTERS], text[-CHECK_CHARACTERS:]
    try:
        data = base64.b32decode(piece + "=" * (-len(piece) % 8))
    except ValueError:
        data = b""
    if not data or check != _check(number, data) or piece != _text(data):
        raise ConfigurationError(f"line {number:02d} has a mistake", hint="compare it with the paper, letter by letter")
    return data


def _text(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def _check(number: int, piece: bytes) -> str:
    return _text(sha256(b"agent key line %d\0" % number + piece))[:CHECK_CHARACTERS]


def _whole_check(key: AgentKey) -> str:
    return _text(sha256(b"agent key\0" + key.public))[: 2 * CHECK_CHARACTERS]


def _grouped(text: str) -> str:
    return " ".join(text[start : start + GROUP_CHARACTERS] for start in range(0, len(text), GROUP_CHARACTERS))
