"""The page docs/reference/cli.md: every verb with its options, from the declarations of the verbs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from inspect import cleandoc

import click

from cryostore.cli.reference import NO_REWRAP, every_command

COLUMNS_MAX = 100
HEAD = """\
# Command line

`make docs` writes this page from the declarations of the verbs. `cryo VERB --help` and the manual
pages (`cryo man`) have the same text. [Exit codes](exit-codes.md) are on a page of their own.
Options of a server are also lines of its [configuration file](configuration.md).
"""


def render() -> str:
    """Return the page as Markdown."""
    return "\n".join([HEAD, *(line for context in every_command() for line in _command(context))])


def _command(context: click.Context) -> Iterator[str]:
    verb = context.command
    yield f"{'##' if context.parent is None or context.parent.parent is None else '###'} {context.command_path}"
    yield ""
    yield from textwrap.wrap(f"`{' '.join([context.command_path, *verb.collect_usage_pieces(context)])}`", COLUMNS_MAX)
    yield ""
    yield from _paragraphs(verb.help or "")
    if options := [
        record
        for parameter in verb.get_params(context)
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
    ]:
        yield from ("| option | meaning |", "|---|---|")
        yield from (f"| `{_cell(names)}` | {_cell(meaning)} |" for names, meaning in options)
        yield ""


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", cleandoc(text)):
        if paragraph.lstrip(" ").startswith(NO_REWRAP):
            yield from (f"    {line}" for line in paragraph.partition(NO_REWRAP)[2].strip("\n").splitlines())
        else:
            yield from textwrap.wrap(" ".join(paragraph.split()), COLUMNS_MAX, break_on_hyphens=False)
        yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
