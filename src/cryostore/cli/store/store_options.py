"""The options of a server as options of a command line, made of their declarations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cryostore.options.option import Option


def click_option(option: Option, *, help_text: str | None = None) -> Callable[[Any], Any]:
    """The option for a verb, which gets a text, or None if it was left out: who calls reads it by its kind.

    Variables are read beside this, so that the file can stand behind them; the help text names them.
    """
    kind = option.kind
    unsaid = f"; default: {option.unsaid}" if option.unsaid and not kind.is_flag else ""
    said = f"{help_text or option.help}  [env var: {option.variable}{unsaid}]"
    if kind.is_flag:
        return click.option(option.flag, option.key, is_flag=True, default=None, help=said)
    types: Any = str
    if kind.choices:
        types = click.Choice(list(kind.choices))
    elif kind.is_path:
        types = click.Path(path_type=Path)
    metavar = None if kind.choices else kind.metavar
    return click.option(option.flag, option.key, type=types, default=None, metavar=metavar, help=said)


def config_option() -> Callable[[Any], Any]:
    """The option `--config`."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        envvar="CRYO_CONFIG",
        show_envvar=True,
        metavar="FILE",
        help="A TOML file with options; the command line and the environment come first.",
    )
