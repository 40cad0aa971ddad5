"""Maps of strings that callers send: their size, their encoding, and how the catalog keeps them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cryostore.model.errors import ModelError


def map_bytes(name: str, texts: Mapping[str, str], wrong: type[ModelError]) -> int:
    """Size of all keys and values in bytes of UTF-8. Raises `wrong`, without any value, for invalid Unicode."""
    try:
        return sum(len(key.encode()) + len(value.encode()) for key, value in texts.items())
    except UnicodeEncodeError:
        raise wrong(f"{name}: keys and values must be valid UTF-8") from None


def check_map(name: str, texts: Mapping[str, str], bytes_max: int, wrong: type[ModelError]) -> None:
    """Raise `wrong` if the map holds invalid Unicode, or over `bytes_max` bytes in keys and values together."""
    size = map_bytes(name, texts, wrong)
    if size > bytes_max:
        raise wrong(f"{name}: {size} bytes must be at most {bytes_max}")


def parse_map(text: str) -> dict[str, str]:
    """The map that the catalog keeps as this JSON."""
    return msgspec.json.decode(text, type=dict[str, str])
