"""The option `--key` of agent commands, and passphrases, which never come from the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.core.errors import ConfigurationError
from cryostore.core.interrupts import interruptible

if TYPE_CHECKING:
    from cryostore.agent.archive.reader import Archive
    from cryostore.agent.encryption.agent_key import PublicKey

WITH_BACKUPS = "@passphrase"
FILE_VARIABLE = "CRYO_KEY_PASSPHRASE_FILE"
PASSPHRASE_BYTES_MAX = 4096


def key_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option `--key`; the command takes it as `key`."""
    option = click.option(
        "--key",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        metavar="FILE",
        envvar="CRYO_KEY_FILE",
        show_envvar=True,
        help="A key file, to encrypt backups before they are sent. @passphrase: a key that is stored with them.",
    )
    optioned: Callable[..., Any] = option(command)
    return optioned


def read_key(path: Path | None) -> PublicKey | None:
    """Return the key that `--key` names; None if there is none, or if the key is stored with the backups."""
    return None if path is None or str(path) == WITH_BACKUPS else key_in(path)


def key_in(path: Path) -> PublicKey:
    """Return the key in a file. Asks for its passphrase if it has one."""
    from cryostore.agent.encryption.key_file import read

    return read(str(path), lambda: passphrase(f"Passphrase of {path}: "))


def passphrase(prompt: str, *, twice: bool = False) -> str:
    """Return a passphrase from the file that CRYO_KEY_PASSPHRASE_FILE names, else from the terminal.

    Raises ConfigurationError if there is neither.
    """
    if name := os.environ.get(FILE_VARIABLE):
        try:
            with interruptible, Path(name).open("rb") as file:  # it may be a pipe without a writer
                found = file.read(PASSPHRASE_BYTES_MAX).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"the file that {FILE_VARIABLE} names cannot be read") from None
    elif sys.stdin.isatty():
        found = output.ask_secret(prompt.rstrip(": "), twice=twice)
    else:
        raise ConfigurationError(
            "a passphrase is needed, but there is no terminal to ask for it",
            hint=f"name a file with it in {FILE_VARIABLE}",
        )
    if not found:
        raise ConfigurationError("the passphrase is empty")
    return found


def note_unproved(archive: Archive) -> None:
    """Print a note if the archive could have been made with the public part of the key alone."""
    if archive.sealing is not None and not archive.sealing.is_owned:
        output.tell("note: this was written with a public key, so nothing proves that the owner of the key wrote it")
