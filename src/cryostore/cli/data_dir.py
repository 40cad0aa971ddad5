"""The data directory of the verbs that work on a store themselves, beside a server or without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cryostore.service import Service

KEYRING_META = "cryostore.keyring"


def data_dir_option(help_text: str) -> Callable[[Any], Any]:
    """The options `--data-dir` and `--keyring`, the same for every verb; the second is `named_keyring`'s."""
    data_dir = click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("cryo-data"),
        envvar="CRYO_DATA_DIR",
        show_default="./cryo-data",
        show_envvar=True,
        help=help_text,
    )
    keyring = keyring_option(expose_value=False, callback=_keep)
    return lambda command: data_dir(keyring(command))


def keyring_option(**more: Any) -> Callable[[Any], Any]:
    """The option `--keyring`."""
    return click.option(
        "--keyring",
        metavar="PLACE",
        default=None,
        envvar="CRYO_KEYRING",
        show_envvar=True,
        help="The master keys, if not in the data directory: PATH, file:PATH, env:NAME or command:PROGRAM ARGUMENT...",
        **more,
    )


def named_keyring() -> str | None:
    """What `--keyring` said to the verb that is being carried out."""
    context = click.get_current_context(silent=True)
    keyring: str | None = context.meta.get(KEYRING_META) if context else None
    return keyring


def _keep(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta[KEYRING_META] = value


@contextmanager
def existing_store(data_dir: Path) -> Iterator[Service]:
    """The store in a directory, which must hold one. Servers may run on it meanwhile."""
    from cryostore.service.open import CATALOG, open_service

    if not (data_dir / CATALOG).exists():
        raise ConfigurationError(f"{data_dir} holds no store", hint="name the directory that the server was given")
    service = open_service(data_dir, keyring=named_keyring())
    try:
        yield service
    finally:
        service.close()
