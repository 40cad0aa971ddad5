"""Selection of source entries: the root of the tree that is backed up, and the entries below it that are left out.

`rooted` finds the root from the paths of the command line. `Selection` leaves out entries by patterns and sizes.

Patterns for paths have the rules of git's .gitignore. A pattern that begins with a slash is a path from the top of the
file system. Other patterns match at every depth below the PATH that is backed up. Only here a pattern with a slash in
its middle differs from git. The last pattern that matches an entry decides; a pattern that begins with `!` takes back
earlier ones.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cryostore.agent.source.walk import join
from cryostore.core.errors import ConfigurationError

FOLDER_NAMES = (b"", b".", b"..")
"""Last components of a path that names a folder, even behind a symlink."""
EXCLUDED = "excluded by a pattern"
TOO_LARGE = "larger than wanted"
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


class Roots(NamedTuple):
    """The root of a tree, and the paths below it that are backed up. `only` is None for the whole tree.

    `only` has the empty path if the whole root is backed up and paths below it were named too.
    """

    root: bytes
    only: frozenset[bytes] | None


def rooted(paths: Sequence[bytes], listed: Sequence[bytes] = ()) -> Roots:
    """The smallest tree that holds all of the paths. A single folder is its own root.

    A walk follows no symlink below its root. So if a symlink leads to a path, or a path of `paths` is a symlink to a
    folder, its target is backed up, and the symlink too if it was named. `listed` are paths that a program listed: a
    symlink among them stays a symlink, unless a slash follows it.

    A path that does not exist counts too: neither the name of a recovery point nor the location of a file in it depends
    on that, and the walk reports the path. Raises ConfigurationError if none of the paths exists.
    """
    if b"" in paths:  # an unset variable of a script, which must not become the current directory
        raise ConfigurationError("a PATH is empty", hint="use `.` for the current directory")
    whole = {_absolute(path) for path in (*paths, *listed)}
    root = os.path.commonpath(whole)
    if len(whole) > 1:
        folders = {path for path in _folders(paths, listed) if os.path.islink(path) and os.path.isdir(path)}
        if folders - {root} or _symlink_between(root, whole):
            whole = {_resolved(path) for path in whole} | {os.path.realpath(path) for path in folders}
            root = os.path.commonpath(whole)
    _require_something(whole)
    if whole == {root} and os.path.isdir(root):
        return Roots(root, None)
    if root in whole and not os.path.isdir(root):
        root = os.path.dirname(root)
    return Roots(root, frozenset(path[len(root.rstrip(b"/")) + 1 :] for path in whole))


def _absolute(path: bytes) -> bytes:
    """The absolute path. As for the system, `..` after a symlink is the folder above its target."""
    return os.path.abspath(_resolved(path) if b".." in path.split(b"/") else path)


def _resolved(path: bytes) -> bytes:
    """The path with all symlinks resolved except its last component."""
    above, name = os.path.split(path)
    return os.path.realpath(path) if name in FOLDER_NAMES else os.path.join(os.path.realpath(above), name)


def _folders(paths: Iterable[bytes], listed: Iterable[bytes]) -> set[bytes]:
    """The absolute paths that mean the folder if they are a symlink to one."""
    return {
        *map(_absolute, paths),
        *(_absolute(path) for path in listed if os.path.basename(path) in FOLDER_NAMES),
    }


def _symlink_between(root: bytes, whole: Iterable[bytes]) -> bool:
    """Whether one of the paths leads through a symlink below the root."""
    top = os.path.realpath(root)
    above = {os.path.dirname(path) for path in whole if path != root}
    return any(os.path.realpath(path) != os.path.join(top, os.path.relpath(path, root)) for path in above - {root})


def _require_something(whole: Iterable[bytes]) -> None:
    """Raise ConfigurationError if none of the paths can be backed up."""
    first = ""
    for path in sorted(whole):
        reason = _fault(path)
        if reason is None:
            return
        first = first or f"{os.fsdecode(path)!a} {reason}"
    raise ConfigurationError(first, hint="there is nothing to back up")


def _fault(path: bytes) -> str | None:
    """The reason why a path cannot be backed up; None if it can."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "is a socket, which has no content" if stat.S_ISSOCK(mode) else None


class Selection:
    """Leaves out the entries below each PATH that patterns name, and files that are too large.

    It never leaves out a PATH.

    `only` has the PATHs relative to `root`; None if the root is the only PATH. `skipped` counts the entries left out,
    by reason. A folder counts as one entry, whatever it holds.
    """

    def __init__(
        self,
        root: bytes,
        patterns: Sequence[str],
        bytes_max: int | None = None,
        skipped: Counter[str] | None = None,
        *,
        only: frozenset[bytes] | None = None,
    ) -> None:
        """Raises ConfigurationError for a malformed pattern."""
        self._root = root
        self._only = only
        self._patterns = Patterns(patterns) if patterns else None
        self._bytes_max = bytes_max
        self._skipped = Counter() if skipped is None else skipped

    def __call__(self, path: bytes, mode: int, size: int) -> bool:
        if self._bytes_max is not None and size > self._bytes_max and stat.S_ISREG(mode):
            self._skipped[TOO_LARGE] += 1
            return False
        if self._patterns is None or not self._names(path, is_directory=stat.S_ISDIR(mode)):
            return True
        self._skipped[EXCLUDED] += 1
        return False

    def _names(self, path: bytes, *, is_directory: bool) -> bool:
        assert self._patterns is not None
        top = self._path_of(path)
        if top is None:
            return False
        below = path[len(top) :].lstrip(b"/") if top else path
        place = join(self._root.rstrip(b"/"), top) if top else self._root
        return bool(self._patterns.decide(below, is_directory=is_directory, top=place))

    def _path_of(self, path: bytes) -> bytes | None:
        """The PATH that holds an entry, relative to the root; None if the entry is a PATH itself, or above one."""
        if self._only is None:
            return b""
        above = path
        while above not in self._only:
            if not above:
                return None
            above = above.rpartition(b"/")[0]
        return None if above == path else above
