"""Command lines in README.md and docs/guide: each one is valid."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from cryostore.cli.verbs import VERBS, cryo
from support.project import ROOT, shown

PAGES = ("README.md", *sorted(shown(path) for path in (ROOT / "docs" / "guide").glob("*.md")))
TYPED = re.compile(r"^(?:    )?((?:.*?[|(] *)?cryo (?!VERB).*?)(?: {2,}#.*)?$", re.MULTILINE)
MENTIONED = re.compile(r"`(cryo (?!VERB)[^`]*)`")


def pieces(line):
    """Yield the arguments of every `cryo` command in a shell line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>()&;")
    lexer.whitespace_split = True
    call = None
    for word in [*lexer, "|"]:
        if set(word) <= set("|<>()&;"):
            if call is not None and len(call) > 1:
                yield call[1:]
            call = None
        elif call is not None:
            call.append(word)
        elif word == "cryo":
            call = [word]


def command_lines(page):
    """Return the command lines of a page, from its blocks and between backquotes, where line breaks do not count."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^    .*$|^```sh\n(?:.*?)^```", text, re.MULTILINE | re.DOTALL))
    typed = [line for line in TYPED.findall(blocks) if not line.startswith("<!--")]
    mentioned = [" ".join(found.split()) for found in MENTIONED.findall(text)]
    return [(line, True) for line in typed] + [(line, False) for line in mentioned]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_line_is_valid(page):
    for line, whole in command_lines(page):
        for verb, *arguments in pieces(line):
            assert verb in VERBS, line
            wanted = [argument for argument in arguments if argument != "--help"]
            command, context = cryo, click.Context(cryo)
            names = [verb, *wanted]
            while isinstance(command, click.Group) and names:
                name = names.pop(0)
                command = command.get_command(context, name)
                assert command is not None, line
            try:
                command.make_context(verb, names)
            except (click.MissingParameter, click.BadOptionUsage, click.exceptions.NoArgsIsHelpError):
                assert not whole, f"{line}: only a mentioned command may be incomplete"


def test_the_pages_show_common_verbs():
    """Proves that command lines are found, so that the test above has an effect."""
    seen = {verb for page in PAGES for line, _ in command_lines(page) for verb, *_ in pieces(line)}
    assert {"backup", "restore", "points", "status", "serve", "init-key", "serve-nbd"} <= seen
