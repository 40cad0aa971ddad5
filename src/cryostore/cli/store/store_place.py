"""The store of the verbs that work on one themselves, beside servers or without: a directory, or a shared store."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryostore.cli.store.store_options import click_option, config_option
from cryostore.core.errors import ConfigurationError
from cryostore.options.option import STORE, STORE_KEYS

if TYPE_CHECKING:
    from cryostore.chunks.keyring import KeyringSource, KeyringUri
    from cryostore.service import Service, Settings
    from cryostore.service.opening.address import SharedStoreAddress

DATA_DIR_DEFAULT = Path("cryo-data")


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Which store is meant, and how its service behaves. Either of `data_dir` and `shared` is None."""

    data_dir: Path | None
    shared: SharedStoreAddress | None
    keyring: str | None
    settings: Settings

    def __str__(self) -> str:
        return str(self.data_dir) if self.shared is None else self.shared.shown_catalog

    @property
    def keyring_place(self) -> KeyringUri:
        """Where its keyring is, or is to be. Raises ConfigurationError."""
        from cryostore.chunks.keyring import parse_keyring_uri
        from cryostore.service.opening.keyring import keyring_uri_of

        if self.data_dir is not None:
            return keyring_uri_of(self.data_dir, self.keyring)
        return parse_keyring_uri(self.keyring or "")

    def open_keyring(self) -> KeyringSource:
        """Open its keyring, which must be there. Raises ConfigurationError."""
        from cryostore.service.opening.keyring import existing_keyring

        if self.data_dir is not None:
            return existing_keyring(self.data_dir, self.keyring)
        assert self.shared is not None
        return self.shared.open_keyring()


def store_options(help_text: str) -> Callable[[Any], Any]:
    """The options that name a store, the same for every verb; the verb takes `place`, a StorePlace."""

    def decorate(verb: Callable[..., Any]) -> Any:
        @functools.wraps(verb)
        def with_place(config: Path | None, **options: Any) -> Any:
            texts = {key: options.pop(key) for key in STORE_KEYS}
            return verb(place=place_of_options(texts, config), **options)

        optioned: Any = config_option()(with_place)
        for option in reversed(STORE):
            optioned = click_option(option, help_text=help_text if option.key == "data_dir" else None)(optioned)
        return optioned

    return decorate


def place_of_options(texts: dict[str, Any], config: Path | None) -> StorePlace:
    """The store that command line, environment and file name together. Raises ConfigurationError."""
    from cryostore.options.declared import SETTINGS_KEYS, settings_of
    from cryostore.options.sources import merged, read_command_line, read_environment, read_file

    file = read_file(config) if config is not None else {}
    environment = read_environment(os.environ, (*STORE_KEYS, *SETTINGS_KEYS))
    values = merged(read_command_line(texts), environment, file)
    return StorePlace(_data_dir(values), shared_place(values), values.get("keyring"), settings_of(values))


def shared_place(values: dict[str, Any]) -> SharedStoreAddress | None:
    """The shared store that options name; None if they name none. Raises ConfigurationError if a part is missing."""
    from cryostore.service.opening.address import SharedStoreAddress

    if _data_dir(values) is not None:
        return None
    if missing := [f"--{key}" for key in ("catalog", "blobs", "keyring") if key not in values]:
        raise ConfigurationError(f"a shared store needs {' and '.join(missing)}, too")
    return SharedStoreAddress(values["catalog"], values["blobs"], values["keyring"])


def _data_dir(values: dict[str, Any]) -> Path | None:
    if "catalog" in values or "blobs" in values:
        return None
    data_dir: Path = values.get("data_dir", DATA_DIR_DEFAULT)
    return data_dir


@contextmanager
def existing_store(place: StorePlace) -> Iterator[Service]:
    """The service on a store that must be there. Servers may run on it meanwhile."""
    service = _open(place)
    try:
        yield service
    finally:
        service.close()


def _open(place: StorePlace) -> Service:
    from cryostore.service.opening.open import CATALOG, open_service
    from cryostore.service.opening.open_shared import open_shared_service

    if place.shared is not None:
        return open_shared_service(place.shared, settings=place.settings)
    assert place.data_dir is not None
    if not (place.data_dir / CATALOG).exists():
        raise ConfigurationError(f"{place} holds no store", hint="name the directory that the server was given")
    return open_service(place.data_dir, keyring=place.keyring, settings=place.settings)
