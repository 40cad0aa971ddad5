"""Maps of texts that callers give: how large they are, and that they can be written down at all."""

from __future__ import annotations

from collections.abc import Mapping

from cryostore.model.errors import ModelError


def map_bytes(name: str, texts: Mapping[str, str], wrong: type[ModelError]) -> int:
    """The bytes of all keys and values in UTF-8. Raises `wrong`, which never shows a value, if one is not text."""
    try:
        return sum(len(key.encode()) + len(value.encode()) for key, value in texts.items())
    except UnicodeEncodeError:
        raise wrong(f"{name}: keys and values must be valid UTF-8") from None


def check_map(name: str, texts: Mapping[str, str], bytes_max: int, wrong: type[ModelError]) -> None:
    """Raise `wrong` unless the map is text of at most `bytes_max` bytes, keys and values together."""
    size = map_bytes(name, texts, wrong)
    if size > bytes_max:
        raise wrong(f"{name}: {size} bytes must be at most {bytes_max}")
