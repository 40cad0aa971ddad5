"""Commands that print references: manual pages, shell completion, OpenAPI, the SDK model.

The manual pages are generated from the declarations of the commands. The functions at the end of that part write the
markup: the few requests of man(7) that the pages need, and escaping.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click

from cryostore import __version__
from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE, MEANINGS
from cryostore.cli.verbs import VERBS
from cryostore.core.errors import ConfigurationError

PROGRAM = "cryo"
NO_REWRAP = "\b"
"""Click's mark of a paragraph whose line breaks are kept."""
SHELLS = ("bash", "zsh", "fish")


@click.command("completion", epilog=EPILOGUE)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes a shell complete `cryo` commands.

    For this session: `source <(cryo completion bash)`, the same with zsh, and `cryo completion fish | source`.

    \b
    For every session, in a file that the shell reads at its start:
      bash  ~/.local/share/bash-completion/completions/cryo
      zsh   _cryo in a folder of $fpath
      fish  ~/.config/fish/completions/cryo.fish
    """  # noqa: D301 - click's mark
    from click.shell_completion import get_completion_class

    from cryostore.cli.verbs import cryo

    kind = get_completion_class(shell)
    assert kind is not None
    found = kind(cryo, {}, "cryo", "_CRYO_COMPLETE")
    output.document(found.source_template % found.source_vars() + "\n")


@click.command("man", epilog=EPILOGUE)
@click.argument("words", metavar="[VERB]...", nargs=-1)
@click.option("--to", "folder", type=click.Path(path_type=Path), default=None, help="Write all pages into this folder.")
def man(words: tuple[str, ...], folder: Path | None) -> None:
    """Print the manual page of VERB, or of `cryo` itself; or write all pages.

    `cryo man backup | man -l -` shows one. After `cryo man --to ~/.local/share/man/man1`, `man cryo-backup` works.
    """
    if folder is not None:
        if words:
            raise click.UsageError("--to writes the pages of all commands; drop VERB")
        _write(folder)
        return
    output.document(page(_asked(words)))


def _asked(words: tuple[str, ...]) -> click.Context:
    """Return the command of these words, such as `key rotate`. Raises UsageError."""
    context = _top()
    for word in words:
        group = context.command
        inner = group.get_command(context, word) if isinstance(group, click.Group) else None
        if inner is None:
            raise click.UsageError(f"there is no command {' '.join(words)!a}")
        context = click.Context(inner, parent=context, info_name=word)
    return context


def _write(folder: Path) -> None:
    written = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for context in every_command():
            (folder / f"{page_name(context)}.1").write_text(page(context), encoding="utf-8")
            written += 1
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or folder} cannot be written: {error.strerror}",
            hint="name a folder that you may write to",
        ) from error
    output.show(f"{folder}: {written} pages")


def every_command() -> Iterator[click.Context]:
    """Yield `cryo`, each command, and the commands below it."""
    yield from _below(_top())


def _top() -> click.Context:
    from cryostore.cli.verbs import cryo

    return click.Context(cryo, info_name=PROGRAM, **cryo.context_settings)


def _below(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            inner = context.command.get_command(context, name)
            if inner is not None:
                yield from _below(click.Context(inner, parent=context, info_name=name))


def page_name(context: click.Context) -> str:
    """Return the name of a page, such as cryo-key-rotate."""
    return context.command_path.replace(" ", "-")


def page(context: click.Context) -> str:
    """Return one manual page."""
    verb = context.command
    lines = [_title(page_name(context), f"cryostore {__version__}")]
    lines += [_section("NAME"), rf"{_text(page_name(context))} \- {_text(_summary(context))}"]
    lines += [_section("SYNOPSIS"), rf"\fB{_text(context.command_path)}\fR {_text(_usage(context))}"]
    lines += [_section("DESCRIPTION"), *_paragraphs(verb.help or _summary(context))]
    if isinstance(verb, click.Group):
        lines += [_section("COMMANDS"), *_commands(context, verb)]
    lines += [_section("OPTIONS"), *_options(context)]
    if variables := list(_environment(context)):
        lines += [_section("ENVIRONMENT"), *variables]
    lines += [_section("EXIT STATUS"), *_exit_codes(), _section("SEE ALSO"), _see_also(context)]
    return "\n".join(lines) + "\n"


def _summary(context: click.Context) -> str:
    known = VERBS.get(context.info_name or "") if context.parent and context.parent.parent is None else None
    words = known[1] if known else context.command.get_short_help_str(limit=200)
    return words[:1].lower() + words[1:].rstrip(".")


def _usage(context: click.Context) -> str:
    return " ".join(context.command.collect_usage_pieces(context))


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):  # arguments stand in the synopsis
            yield from _item(*record)


def _commands(context: click.Context, group: click.Group) -> Iterator[str]:
    for name in group.list_commands(context):
        inner = group.get_command(context, name)
        if inner is not None:
            inside = click.Context(inner, parent=context, info_name=name)
            yield from _item(f"{page_name(inside)}(1)", _summary(inside).capitalize() + ".")


def _environment(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        if isinstance(parameter, click.Option) and isinstance(parameter.envvar, str):
            yield from _item(parameter.envvar, f"The same as {max(parameter.opts, key=len)}.")


def _exit_codes() -> Iterator[str]:
    for code, meaning in MEANINGS.items():
        yield from _item(str(code), f"{meaning}.")


def _see_also(context: click.Context) -> str:
    if context.parent is None:
        return r"\fBcryo\-backup\fR(1), \fBcryo\-restore\fR(1), \fBcryo\-serve\fR(1)"
    return rf"\fB{_text(page_name(context.parent))}\fR(1)"


def _title(name: str, footer: str) -> str:
    """Return the first line of a page. It has no date, so that the same program always prints the same page."""
    return f'.TH "{_text(name.upper())}" "1" "" "{_text(footer)}" "Cryostore"'


def _section(name: str) -> str:
    """Return the heading of a section."""
    return f".SH {_text(name)}"


def _paragraphs(words: str) -> list[str]:
    """Return the paragraphs of a help text, which empty lines separate."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", cleandoc(words)):
        lines.append(".PP")
        if paragraph.lstrip(" ").startswith(NO_REWRAP):
            shown = paragraph.partition(NO_REWRAP)[2].strip("\n").splitlines()
            lines += [".nf", *(_text(line) for line in shown), ".fi"]
        else:
            lines.append(_text(" ".join(paragraph.split())))
    return lines


def _item(tag: str, words: str) -> list[str]:
    """Return an entry of a list: its tag in bold, and its text."""
    return [".TP", rf"\fB{_text(tag)}\fR", _text(words) or r"\&"]


def _text(words: str) -> str:
    r"""Return text escaped, with no requests in it, and with hyphens that can be copied into a shell.

    Text between backquotes becomes bold.
    """
    escaped = words.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    escaped = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escaped).replace("'", r"\(aq")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


@click.command("openapi", epilog=EPILOGUE)
def openapi() -> None:
    """Print the OpenAPI 3.1 document of every operation of the server."""
    from cryostore.wire.reference import openapi as document

    output.say(document.render(), indent=2)


@click.command("sdk-model", epilog=EPILOGUE)
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--extensions/--no-extensions",
    default=True,
    show_default=True,
    help="Include the operations that AWS does not have.",
)
def sdk_model(folder: Path, extensions: bool) -> None:
    """Write a botocore data folder into DIR.

    With AWS_DATA_PATH=DIR, current versions of boto3 and the aws CLI know `backupstorage`. Files of the same name are
    replaced.
    """
    from cryostore.wire.reference import sdk_model as model

    for name, data in model.render(extensions=extensions).items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
    output.show(f"AWS_DATA_PATH={folder.absolute()}")
