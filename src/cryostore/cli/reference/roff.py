"""Manual page markup: the few requests of man(7) that our pages need, and escaping.

The content of the pages is in `man`.
"""

from __future__ import annotations

import re
from inspect import cleandoc

NO_REWRAP = "\b"
"""Click's mark of a paragraph whose line breaks are kept."""


def title(name: str, footer: str) -> str:
    """Return the first line of a page. It has no date, so that the same program always prints the same page."""
    return f'.TH "{text(name.upper())}" "1" "" "{text(footer)}" "Cryostore"'


def section(name: str) -> str:
    """Return the heading of a section."""
    return f".SH {text(name)}"


def paragraphs(words: str) -> list[str]:
    """Return the paragraphs of a help text, which empty lines separate."""
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
    """Return an entry of a list: its tag in bold, and its text."""
    return [".TP", rf"\fB{text(tag)}\fR", text(words) or r"\&"]


def text(words: str) -> str:
    r"""Return text escaped, with no requests in it, and with hyphens that can be copied into a shell.

    Text between backquotes becomes bold.
    """
    escaped = words.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    escaped = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escaped).replace("'", r"\(aq")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped
