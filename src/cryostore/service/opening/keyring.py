"""Keyring of a data directory: the file in it, or the keyring that the operator names.

A wrong keyring is refused with a hint, and never replaced by a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryostore.chunks.keyring import KeyringSource, KeyringUri, open_keyring, open_or_create_keyring, parse_keyring_uri
from cryostore.core.errors import BlobNotFoundError, ConfigurationError
from cryostore.core.ids import NewId

KEYRING = "keyring.json"
DATA_NAMES = ("catalog.sqlite", "records", "packs")
"""Names in a data directory that a keyring may protect: if one of them is there, no new keyring is made."""


def keyring_uri_of(data_dir: Path, keyring: str | None) -> KeyringUri:
    """The location of a data directory's keyring; `keyring` is the operator's option. Raises ConfigurationError."""
    inside = data_dir / KEYRING
    if keyring is None:
        return KeyringUri("file", str(inside))
    place = parse_keyring_uri(keyring)
    if inside.exists() and not (place.path is not None and place.path.exists() and place.path.samefile(inside)):
        raise ConfigurationError(
            f"{inside} exists, and --keyring names another keyring",
            hint="leave out --keyring; or, if the other one has all of its keys (`cryo key list`), move this one away",
        )
    return place


def open_or_create_keyring_of(
    data_dir: Path, keyring: str | None, new_id: NewId, on_created: Callable[[Path], None] = lambda _: None
) -> KeyringSource:
    """Open the keyring of a data directory; create a missing keyring file if the directory holds no data yet.

    Calls `on_created` with the path of a new one. Raises ConfigurationError.
    """
    place = keyring_uri_of(data_dir, keyring)
    path = place.path
    if path is None or path.exists():
        return open_keyring(place)
    if any(_holds_something(data_dir / name) for name in DATA_NAMES):
        raise _missing(data_dir, path)
    try:
        return open_or_create_keyring(path, new_id, on_created)
    except BlobNotFoundError:
        raise ConfigurationError(
            f"keyring {path} cannot be made: there is no directory {path.parent}",
            hint=f"Run: mkdir -m 700 {path.parent}",
        ) from None


def existing_keyring(data_dir: Path, keyring: str | None = None) -> KeyringSource:
    """Open the keyring of a data directory, which must exist. Raises ConfigurationError."""
    place = keyring_uri_of(data_dir, keyring)
    if place.path is not None and not place.path.exists():
        raise _missing(data_dir, place.path)
    return open_keyring(place)


def _missing(data_dir: Path, path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"keyring {path} is missing, and without it nothing in {data_dir} can be read",
        hint="put the keyring back from your copy of it, or name the place where it is with --keyring;"
        " a new one would not open the old data",
    )


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()
