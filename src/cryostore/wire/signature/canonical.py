"""The canonical request of AWS Signature Version 4: the text that both sides sign.

Path and query are taken from the wire. The path is encoded once more, except slashes. The query is decoded, encoded and
sorted, so different encodings of one query have one signature. Superfluous spaces in header values are removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from cryostore.wire import percent
from cryostore.wire.message import Headers

SPACES = re.compile("[ \t]+")


def request_text(
    method: str, path: str, query: str, headers: Headers, signed_headers: Iterable[str], payload_hash: str
) -> bytes:
    """Return the canonical request, as the bytes to hash; `path` is canonical already.

    Raises KeyError for a signed header that is absent.
    """
    names = tuple(signed_headers)
    values = header_values(headers, names)
    lines = "".join([f"{name}:{values[name]}\n" for name in names])
    text = f"{method}\n{path}\n{query_text(query)}\n{lines}\n{';'.join(names)}\n{payload_hash}"
    return text.encode("latin-1")


def path_text(path: str) -> str:
    """Return the raw path, encoded once more."""
    return quote(path.encode("latin-1", "replace"), safe="/-_.~")


def path_spellings(path: str) -> list[str]:
    """Return the raw path, encoded once more: as in the specification and, if it differs, as AWS.jl does.

    AWS.jl encodes `~` too. No two paths share a spelling: `%7E` in a raw path becomes `%257E`.
    """
    text = path_text(path)
    return [text, text.replace("~", "%7E")] if "~" in text else [text]


def query_text(query: str) -> str:
    """Return the query, canonical and sorted."""
    if not query:
        return ""
    pairs = []
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        pairs.append((percent.canonical(key), percent.canonical(value)))
    pairs.sort()
    return "&".join([f"{key}={value}" for key, value in pairs])


def header_values(headers: Headers, names: Iterable[str]) -> dict[str, str]:
    """Return the values of the named headers without superfluous spaces; a repeated header's are joined by commas."""
    wanted = set(names)
    found: dict[str, str] = {}
    for name, value in headers:
        if name in wanted:
            # Only ASCII spaces: Python treats some Latin-1 bytes as spaces that are part of UTF-8 characters.
            bare = " ".join(value.split()) if value.isascii() else SPACES.sub(" ", value.strip(" \t"))
            found[name] = f"{found[name]},{bare}" if name in found else bare
    return found


def normalised_path(path: str) -> str:
    """Return the path without empty and dot segments, as some signers do (A.4). Not a path to serve."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment and segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")
