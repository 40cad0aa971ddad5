"""Secret bytes on paper: lines of base32 text to print, lock away, and type in again.

Each line has a checksum, so that a typing mistake is found in its line; the last line has a checksum of all of them.
The callers know what the bytes mean, and which public value the last checksum covers.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

from cryostore.core.digest import sha256
from cryostore.core.errors import ConfigurationError

TEXT_BYTES_MAX = 1024 * 1024
GROUP_CHARACTERS = 4
LINE_CHECK_CHARACTERS = 4
MISREAD = str.maketrans("018", "OIB")
"""Digits that are not in base32, and the letters that look like them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """One kind of secret on paper. The checksums cover `name` too; `comment` tells people what to do with the lines."""

    title: str
    name: str
    comment: tuple[str, ...]
    line_bytes: int
    end_characters: int

    def write(self, data: bytes, stands_for: bytes) -> str:
        """The bytes as text for people. The last line is a checksum of `stands_for`, a public value of the secret."""
        pieces = [data[start : start + self.line_bytes] for start in range(0, len(data), self.line_bytes)]
        lines = [
            f"{number:02d}  {_grouped(_letters(piece) + self._line_check(number, piece))}"
            for number, piece in enumerate(pieces, start=1)
        ]
        end = _grouped(self._end(stands_for))
        return "\n".join((*self.comment, self.title, *lines, f"END {end}")) + "\n"

    def read(self, text: bytes, stands_for: Callable[[bytes], bytes | None]) -> bytes:
        """Decode a text that a person typed in.

        `stands_for` returns the public value that the last line is a checksum of, or None for bytes of another kind.
        Raises ConfigurationError, whose message names the wrong line and never repeats it.
        """
        content = bytearray()
        for number, line in enumerate(self._lines(text), start=1):
            label, _, rest = line.partition(" ")
            letters = "".join(rest.split()).translate(MISREAD)
            if label == "END":
                wanted = stands_for(bytes(content))
                if wanted is None or letters != self._end(wanted):
                    raise ConfigurationError(
                        "the lines do not match the checksum in the line END",
                        hint="check whether a line is missing before it",
                    )
                return bytes(content)
            content += self._piece(number, label, letters)
        raise ConfigurationError("the line END is missing", hint="it is the last line")

    def _lines(self, text: bytes) -> list[str]:
        """The lines after the title, without empty ones."""
        lines = [line.strip().upper() for line in text[:TEXT_BYTES_MAX].decode("ascii", "replace").splitlines()]
        start = next((place for place, line in enumerate(lines) if " ".join(line.split()) == self.title), None)
        if start is None:
            raise ConfigurationError(f"the first line, {self.title!r}, is missing")
        return [line for line in lines[start + 1 :] if line]

    def _piece(self, number: int, label: str, letters: str) -> bytes:
        if not label.isdigit() or int(label) != number:
            raise ConfigurationError(f"line {number:02d} is missing, or in the wrong place")
        piece, check = letters[:-LINE_CHECK_CHARACTERS], letters[-LINE_CHECK_CHARACTERS:]
        try:
            data = base64.b32decode(piece + "=" * (-len(piece) % 8))
        except ValueError:
            data = b""
        if not data or check != self._line_check(number, data) or piece != _letters(data):
            hint = "compare it with the paper, letter by letter"
            raise ConfigurationError(f"line {number:02d} has a mistake", hint=hint)
        return data

    def _line_check(self, number: int, piece: bytes) -> str:
        return _letters(sha256(b"%s line %d\0" % (self.name.encode(), number) + piece))[:LINE_CHECK_CHARACTERS]

    def _end(self, stands_for: bytes) -> str:
        return _letters(sha256(self.name.encode() + b"\0" + stands_for))[: self.end_characters]


def _letters(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def _grouped(text: str) -> str:
    return " ".join(text[start : start + GROUP_CHARACTERS] for start in range(0, len(text), GROUP_CHARACTERS))
