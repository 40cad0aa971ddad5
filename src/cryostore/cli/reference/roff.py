"""Text in the form of manual pages: the few requests of man(7) that ours need.

Lives here: how text is written so that it comes out as it is. What the pages say: `man`.
"""

from __future__ import annotations

import re
from inspect import cleandoc

NO_REWRAP = "\b"
"""Click's mark at the top of a paragraph that is to be shown line by line."""


def title(name: str, footer: str) -> str:
    """The first line of a page. It names no date, so that a page depends on nothing but the program."""
    return f'.TH "{text(name.upper())}" "1" "" "{text(footer)}" "Cryostore"'


def section(name: str) -> str:
    """The heading of a section."""
    return f".SH {text(name)}"


def paragraphs(words: str) -> list[str]:
    """The paragraphs of a help text, which are separated by empty lines."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", cleandoc(words)):
        lines.append(".PP")
        if paragraph.lstrip(" ").startswith(NO_REWRAP):
            shown = paragraph.partition(NO_REWRAP)[2].strip("\n").splitlines()
            lines += [".nf", *(text(line) for line in shown), ".fi"]
        else:
            lines.append(text(" ".join(paragraph.split())))
    return lines


def item(tag: str, words: str) -> list[str]:
    """An entry of a list: what it is about, in bold, and the words on it."""
    return [".TP", rf"\fB{text(tag)}\fR", text(words) or r"\&"]


def text(words: str) -> str:
    r"""Words that come out as they are: no escapes, no requests, and hyphens that can be copied into a shell.

    Text between backquotes is bold, as code is elsewhere.
    """
    escaped = words.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    escaped = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escaped).replace("'", r"\(aq")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped
