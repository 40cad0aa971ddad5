"""The store that a store command works on: a directory, or a shared store.

Here are the options of a server as options of a command line, the store that they name, and opening it. Servers may run
on the store meanwhile.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.core.errors import ConfigurationError
from cryostore.options.option import STORE, STORE_KEYS, Option

if TYPE_CHECKING:
    from cryostore.chunks.keyring import KeyringSource, KeyringUri
    from cryostore.service import Service, Settings
    from cryostore.service.opening.shared_store import SharedStoreAddress

DATA_DIR_DEFAULT = Path("cryo-data")


@dataclass(frozen=True, slots=True)
class NamedStore:
    """The store that options name, and the settings of its service. Either `data_dir` or `shared` is None."""

    data_dir: Path | None
    shared: SharedStoreAddress | None
    keyring: str | None
    settings: Settings

    def __str__(self) -> str:
        return str(self.data_dir) if self.shared is None else self.shared.shown_catalog

    @property
    def keyring_uri(self) -> KeyringUri:
        """Return where the keyring is, or will be. Raises ConfigurationError."""
        from cryostore.chunks.keyring import parse_keyring_uri
        from cryostore.service.opening.data_directory import keyring_uri_of

        if self.data_dir is not None:
            return keyring_uri_of(self.data_dir, self.keyring)
        return parse_keyring_uri(self.keyring or "")

    def open_keyring(self) -> KeyringSource:
        """Open the keyring, which must exist. Raises ConfigurationError."""
        from cryostore.service.opening.data_directory import existing_keyring

        if self.data_dir is not None:
            return existing_keyring(self.data_dir, self.keyring)
        assert self.shared is not None
        return self.shared.open_keyring()


def store_options(help_text: str) -> Callable[[Any], Any]:
    """Add the options that name a store, the same for every command; the command takes `store`, a NamedStore."""

    def decorate(verb: Callable[..., Any]) -> Any:
        @functools.wraps(verb)
        def with_store(config: Path | None, **options: Any) -> Any:
            texts = {key: options.pop(key) for key in STORE_KEYS}
            return verb(store=named_store(texts, config), **options)

        optioned: Any = config_option()(with_store)
        for option in reversed(STORE):
            optioned = click_option(option, help_text=help_text if option.key == "data_dir" else None)(optioned)
        return optioned

    return decorate


def named_store(texts: dict[str, Any], config: Path | None) -> NamedStore:
    """Return the store that command line, environment and file name together. Raises ConfigurationError."""
    from cryostore.options.declared import SETTINGS_KEYS, settings_of
    from cryostore.options.sources import merged, read_command_line, read_environment, read_file

    file = read_file(config) if config is not None else {}
    environment = read_environment(os.environ, (*STORE_KEYS, *SETTINGS_KEYS))
    values = merged(read_command_line(texts), environment, file)
    return NamedStore(_data_dir(values), _shared(values), values.get("keyring"), settings_of(values))


def _shared(values: dict[str, Any]) -> SharedStoreAddress | None:
    """Return the shared store, or None if a directory is named. Raises ConfigurationError if a part is missing."""
    from cryostore.service.opening.shared_store import SharedStoreAddress

    if _data_dir(values) is not None:
        return None
    if missing := [f"--{key}" for key in ("catalog", "blobs", "keyring") if key not in values]:
        raise ConfigurationError(f"a shared store also needs {' and '.join(missing)}")
    return SharedStoreAddress(values["catalog"], values["blobs"], values["keyring"])


def _data_dir(values: dict[str, Any]) -> Path | None:
    if "catalog" in values or "blobs" in values:
        return None
    data_dir: Path = values.get("data_dir", DATA_DIR_DEFAULT)
    return data_dir


@contextmanager
def open_store(store: NamedStore) -> Iterator[Service]:
    """Open the service of a store, which must exist, for as long as the context lasts. Raises ConfigurationError."""
    service = _open(store)
    try:
        yield service
    finally:
        service.close()


def _open(store: NamedStore) -> Service:
    from cryostore.service.opening.open import CATALOG, open_service
    from cryostore.service.opening.open_shared import open_shared_service

    if store.shared is not None:
        return open_shared_service(store.shared, settings=store.settings)
    assert store.data_dir is not None
    if not (store.data_dir / CATALOG).exists():
        raise ConfigurationError(f"{store} holds no store", hint="name the data directory of the server")
    return open_service(store.data_dir, keyring=store.keyring, settings=store.settings)


def click_option(option: Option, *, help_text: str | None = None) -> Callable[[Any], Any]:
    """Return the command-line option of a declared option. The command gets its text, or None if it is left out.

    Click does not read the environment variable, which only the help text names: `options.sources` reads it, so that it
    overrides the file.
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
    """Return the option `--config`."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        envvar="CRYO_CONFIG",
        show_envvar=True,
        metavar="FILE",
        help="A TOML file with options; the command line and the environment override it.",
    )
