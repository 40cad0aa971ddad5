"""Sources of option values: the command line, the environment and a TOML file, in this order of precedence.

Here are reading each source and merging them. The options themselves are in `declared`.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from cryostore.core.errors import ConfigurationError
from cryostore.options.configuration import require_own_configuration
from cryostore.options.declared import OPTIONS
from cryostore.options.option import Option, read_as

FILE_BYTES_MAX = 1 << 20
SECRET_PARAMETERS = {"password", "sslpassword"}
OTHERS = 0o077


class Given(NamedTuple):
    """The value of an option, and its source as text for errors."""

    value: Any
    source: str


def read_file(path: Path) -> dict[str, Given]:
    """Read a TOML file; return values by option key.

    Raises ConfigurationError, which names file, key, value and rule, for an unknown key or an invalid value; also for a
    file that other users may write, or one with a password that they may read.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{path} is too large for a configuration file")
    try:
        document = tomllib.loads(data.decode())
    except ValueError as error:  # invalid UTF-8, or invalid TOML
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None
    found = {}
    for key, value in _flat(document, path):
        option = _option(key, path)
        found[key] = Given(read_as(option.kind, value, key, source=f"{path}: "), f"{key} in {path}")
    keyring = str(found["keyring"].value) if "keyring" in found else ""
    require_own_configuration(path, mode, names_command=keyring.startswith("command:"))
    if "catalog" in found and has_password(found["catalog"].value) and stat.S_IMODE(mode) & OTHERS:
        raise ConfigurationError(
            f"{path} holds a password, and other users may read it",
            hint=f"chmod 600 {path}; or remove the password, and set PGPASSWORD",
        )
    return found


def _flat(document: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """Yield keys and values of the document; the key of a value in a table begins with the table's name."""
    tables = {option.table for option in OPTIONS.values()} - {""}
    for key, value in document.items():
        if key in tables:
            if not isinstance(value, dict):
                raise ConfigurationError(f"{path}: {key} must be a table: [{key}]")
            yield from ((f"{key}.{name}", one) for name, one in value.items())
        else:
            yield key, value


def _option(key: str, path: Path) -> Option:
    if key in OPTIONS:
        return OPTIONS[key]
    import difflib  # noqa: PLC0415 - seldom needed

    near = difflib.get_close_matches(key, OPTIONS, 1)
    raise ConfigurationError(
        f"{path}: unknown option {key}",
        hint=f"did you mean {near[0]}?" if near else "docs/reference/configuration.md lists all options",
    )


def read_environment(environment: Mapping[str, str], keys: Collection[str] = OPTIONS) -> dict[str, Given]:
    """Read environment variables; return values by option key. An empty variable counts as unset.

    Raises ConfigurationError.
    """
    return {
        key: Given(read_as(OPTIONS[key].kind, text, OPTIONS[key].variable), OPTIONS[key].variable)
        for key in keys
        if (text := environment.get(OPTIONS[key].variable))
    }


def read_command_line(texts: Mapping[str, Any]) -> dict[str, Given]:
    """Read options of the command line, of which None is left out; return values by option key.

    Raises ConfigurationError.
    """
    found = {}
    for key, value in texts.items():
        option = OPTIONS[key]
        if value is None:
            continue
        if key == "catalog":
            require_no_password(value, option.flag, option.variable)
        found[key] = Given(read_as(option.kind, value, option.flag), option.flag)
    return found


def merged(*levels: Mapping[str, Given]) -> dict[str, Any]:
    """Merge levels of values, of which the first has precedence.

    Raises ConfigurationError if both a data directory and a shared store are named, in whichever levels.
    """
    found: dict[str, Given] = {}
    for level in reversed(levels):
        found |= level
    shared = [found[key].source for key in ("catalog", "blobs") if key in found]
    if shared and "data_dir" in found:
        raise ConfigurationError(
            f"{found['data_dir'].source} and {' and '.join(shared)} exclude each other",
            hint="a store is either a data directory, or a catalog with blobs",
        )
    return {key: given.value for key, given in found.items()}


def require_no_password(url: str, flag: str, variable: str) -> None:
    """Raise ConfigurationError if a URL on the command line has a password."""
    if has_password(url):
        raise ConfigurationError(
            f"{flag} holds a password, which every user of this machine can see",
            hint=f"set PGPASSWORD, use a passfile, or set {variable} to the whole URL",
        )


def has_password(url: str) -> bool:
    """Return whether the URL of a catalog has a password in it."""
    rest = url.partition("://")[2]  # by hand: `urlsplit` does not know lists of hosts
    named, at, after = rest.partition("@")  # as libpq does: a password may have a "?" in it
    if at and "/" not in named:
        rest = after
    else:
        named = ""
    where, _, options = rest.partition("?")
    if ":" in named or ":" in where.rpartition("@")[0]:
        return True
    return any(name in SECRET_PARAMETERS for name, _ in parse_qsl(options))
