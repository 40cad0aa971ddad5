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


def data_dir_option(help_text: str) -> Callable[[Any], Any]:
    """The option `--data-dir`, the same for every verb."""
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("cryo-data"),
        envvar="CRYO_DATA_DIR",
        show_default="./cryo-data",
        show_envvar=True,
        help=help_text,
    )


@contextmanager
def existing_store(data_dir: Path) -> Iterator[Service]:
    """The store in a directory, which must hold one. Servers may run on it meanwhile."""
    from cryostore.service.open import CATALOG, open_service

    if not (data_dir / CATALOG).exists():
        raise ConfigurationError(f"{data_dir} holds no store", hint="name the directory that the server was given")
    service = open_service(data_dir)
    try:
        yield service
    finally:
        service.close()
