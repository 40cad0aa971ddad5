"""The option `--key` of the agent's verbs, and where passphrases come from: never from the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.core.errors import ConfigurationError
from cryostore.core.interrupts import waiting

if TYPE_CHECKING:
    from cryostore.agent.archive.reader import Archive
    from cryostore.agent.encryption.agent_key import PublicKey

WITH_BACKUPS = "@passphrase"
FILE_VARIABLE = "CRYO_KEY_PASSPHRASE_FILE"
PASSPHRASE_BYTES_MAX = 4096


def key_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--key`; the command takes it as `key`."""
    option = click.option(
        "--key",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        metavar="FILE",
        envvar="CRYO_KEY_FILE",
        show_envvar=True,
        help="A key file: backups are encrypted before they are sent. @passphrase: a key that lies with them.",
    )
    optioned: Callable[..., Any] = option(command)
    return optioned


def read_key(path: Path | None) -> PublicKey | None:
    """What `--key` said; None if it said nothing, or that the key lies with the backups."""
    return None if path is None or str(path) == WITH_BACKUPS else key_in(path)


def key_in(path: Path) -> PublicKey:
    """The key of a file. Asks for its passphrase if it has one."""
    from cryostore.agent.encryption.key_file import read

    return read(str(path), lambda: passphrase(f"Passphrase of {path}: "))


def passphrase(prompt: str, *, twice: bool = False) -> str:
    """A passphrase: from the file that CRYO_KEY_PASSPHRASE_FILE names, else from the terminal.

    Raises ConfigurationError if there is neither.
    """
    if name := os.environ.get(FILE_VARIABLE):
        try:
            with waiting, Path(name).open("rb") as file:  # it may be a pipe that nobody writes to
                found = file.read(PASSPHRASE_BYTES_MAX).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"the file that {FILE_VARIABLE} names cannot be read") from None
    elif sys.stdin.isatty():
        found = output.ask_secret(prompt.rstrip(": "), twice=twice)
    else:
        raise ConfigurationError(
            "a passphrase is needed, and nobody can be asked", hint=f"name a file that holds it in {FILE_VARIABLE}"
        )
    if not found:
        raise ConfigurationError("the passphrase is empty")
    return found


def note_unproved(archive: Archive) -> None:
    """Say in one line if anybody who has the public part of the key could have made this archive."""
    if archive.sealing is not None and not archive.sealing.is_owned:
        output.tell("note: a public key was enough to write this; nothing proves that your key's holder did")
