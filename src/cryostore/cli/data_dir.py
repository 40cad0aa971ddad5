"""The option `--keyring` of the agent's verbs, for stores in a directory of this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def keyring_option() -> Callable[[Any], Any]:
    """The option `--keyring`."""
    return click.option(
        "--keyring",
        metavar="PLACE",
        default=None,
        envvar="CRYO_KEYRING",
        show_envvar=True,
        help="The master keys, if not in the data directory: PATH, file:PATH, env:NAME or command:PROGRAM ARGUMENT...",
    )
