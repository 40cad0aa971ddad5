"""Patterns for paths, with the rules of git's .gitignore.

A pattern that begins with a slash is a path from the top of the file system. Other patterns match at every depth below
the PATH that is backed up. Only here a pattern with a slash in its middle differs from git. The last pattern that
matches an entry decides; a pattern that begins with `!` takes back earlier ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from cryostore.core.errors import ConfigurationError

CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r"\ \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": r"\x21-\x7e",
    "lower": "a-z",
    "print": r"\x20-\x7e",
    "punct": r"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    "space": r"\ \t\n\r\x0b\x0c",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
NOT_A_SLASH = "[^/]"


class _Pattern(NamedTuple):
    """A compiled pattern. With `has_slash` it matches a path, not a name; with `is_anchored`, a path from the top."""

    expression: re.Pattern[str]
    takes_back: bool
    only_directories: bool
    has_slash: bool
    is_anchored: bool


class Patterns:
    """Patterns in their order. Raises ConfigurationError for a malformed pattern."""

    def __init__(self, lines: Iterable[str]) -> None:
        found = [_read(line) for line in lines]
        self._last_first = [pattern for pattern in reversed(found) if pattern is not None]

    def decide(self, path: bytes, *, is_directory: bool, top: bytes = b"") -> bool | None:
        """Whether the patterns name this entry itself; None if no pattern matches it.

        `path` is relative to `top`; anchored patterns match the two joined. Leading slashes make no difference.
        """
        text = os.fsdecode(path).lstrip("/")
        name = text.rpartition("/")[2]
        whole = os.fsdecode(top).strip("/") + "/" + text if top.strip(b"/") else text
        for pattern in self._last_first:
            if pattern.only_directories and not is_directory:
                continue
            subject = whole if pattern.is_anchored else text if pattern.has_slash else name
            if pattern.expression.fullmatch(subject):
                return not pattern.takes_back
        return None

    def fit(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether the patterns name this path, or else the nearest directory above it that a pattern matches."""
        path = path.lstrip(b"/")
        while path:
            decision = self.decide(path, is_directory=is_directory)
            if decision is not None:
                return decision
            path, is_directory = path.rpartition(b"/")[0], True
        return False


def literal_start(pattern: str) -> str:
    """A pattern from the command line, where `#` starts a name, not a comment."""
    return "\\" + pattern if pattern.startswith("#") else pattern


def _read(line: str) -> _Pattern | None:
    """The pattern of a line; None for a comment or an empty line."""
    text = _without_trailing_spaces(line)
    if text.startswith("#"):
        return None
    takes_back = text.startswith("!")
    text = text.removeprefix("!") if takes_back else text
    only_directories = text.endswith("/")
    text = text.removesuffix("/") if only_directories else text
    if not text:
        return None
    is_anchored = text.startswith("/")
    has_slash = "/" in text
    if has_slash and not text.startswith(("/", "**/")):
        text = f"**/{text}"
    try:
        expression = _expression(text.removeprefix("/"))
    except ValueError as error:
        hint = "patterns follow the rules of .gitignore; a backslash makes the next character literal"
        raise ConfigurationError(f"invalid pattern {line!a}: {error}", hint=hint) from None
    return _Pattern(re.compile(expression, re.DOTALL), takes_back, only_directories, has_slash, is_anchored)


def _without_trailing_spaces(line: str) -> str:
    """The line without trailing spaces. A space after a backslash is part of the pattern."""
    text = line.rstrip(" ")
    backslashes = len(text) - len(text.rstrip("\\"))
    return text + " " if backslashes % 2 and len(text) < len(line) else text


def _expression(text: str) -> str:
    """The regular expression of a pattern, by the rules of git's wildmatch. Raises ValueError."""
    parts = []
    at = 0
    while at < len(text):
        character = text[at]
        if character == "*":
            part, at = _stars(text, at)
        elif character == "[":
            part, at = _bracket(text, at + 1)
        elif character == "\\":
            if at + 1 == len(text):
                raise ValueError("it ends with a backslash")
            part, at = re.escape(text[at + 1]), at + 2
        else:
            part, at = (NOT_A_SLASH if character == "?" else re.escape(character)), at + 1
        parts.append(part)
    return "".join(parts)


def _stars(text: str, begin: int) -> tuple[str, int]:
    """The expression of a run of stars, and its end.

    Two or more stars that are a whole path component match any depth.
    """
    end = begin
    while text[end : end + 1] == "*":
        end += 1
    starts_part = begin == 0 or text[begin - 1] == "/"
    if end - begin == 1 or not starts_part or text[end : end + 1] not in ("", "/"):
        return f"{NOT_A_SLASH}*", end
    return ("(?:.*/)?", end + 1) if text[end : end + 1] == "/" else (".*", end)


def _bracket(text: str, at: int) -> tuple[str, int]:
    """The character set that begins at `at`, and its end. Raises ValueError for an open or malformed set."""
    is_negated = text[at : at + 1] in ("!", "^")
    at += is_negated
    begin = at
    members = []
    previous = ""
    while at == begin or text[at : at + 1] != "]":
        if text.startswith("[:", at) and (end := text.find("]", at + 2)) >= 0 and text[at + 2 : end].endswith(":"):
            name = text[at + 2 : end - 1]
            if name not in CLASSES:
                raise ValueError(f"[:{name}:] is not a character class")
            members.append(CLASSES[name])
            previous, at = "", end + 1
        elif previous and text[at : at + 1] == "-" and text[at + 1 : at + 2] not in ("", "]"):
            last, at = _member(text, at + 1)
            if previous > last:
                raise ValueError(f"the range {previous}-{last} ends before it begins")
            members.append(f"{re.escape(previous)}-{re.escape(last)}")
            previous = ""
        else:
            previous, at = _member(text, at)
            members.append(re.escape(previous))
    return f"(?!/)[{'^' if is_negated else ''}{''.join(members)}]", at + 1


def _member(text: str, at: int) -> tuple[str, int]:
    """One character of a set, and the position of the next."""
    at += text[at : at + 1] == "\\"
    if at >= len(text):
        raise ValueError("a [ has no ]")
    return text[at], at + 1
