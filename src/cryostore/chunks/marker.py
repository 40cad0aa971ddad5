"""Markers: blobs that say to which store the blobs beside them belong. Byte table: docs/reference/formats.md, "Marker".

A shared store has its catalog in one place and its blobs in another. A marker and a row of the catalog name each
other, so that a catalog is never used with the blobs of another store. Markers are numbered from 1, and the newest one
is valid: a process that creates another catalog for the same blobs puts the next marker, and processes that use an
older one are shut out.

Not here: the row of the catalog (`service.opening.shared_store`).
"""

from __future__ import annotations

import msgspec

from cryostore.chunks.blobs import BlobStore
from cryostore.core.errors import BlobExistsError, BlobNotFoundError, DamagedDataError, UnknownFormatError

PREFIX = "store/"
FORMAT = 1


class Marker(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of a marker. It is plain text, because it is read before any key is available, and holds no secret.

    `region` and `account_id` are those of the store's ARNs. `token` distinguishes markers of the same number.
    """

    store_id: str
    number: int
    token: str
    region: str
    account_id: str


class _Format(msgspec.Struct):
    """The field that every version of a marker has."""

    format: int


def marker_key(number: int) -> str:
    """Return the blob key of a marker."""
    return f"{PREFIX}{number:08d}.json"


def find_marker(blobs: BlobStore, number: int) -> Marker | None:
    """Return the marker with this number. Raises DamagedDataError (UnknownFormatError), StorageUnavailableError."""
    key = marker_key(number)
    try:
        data = blobs.get(key)
    except BlobNotFoundError:
        return None
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            raise UnknownFormatError(f"blob {key} has format {found}")
        return msgspec.json.decode(data, type=Marker)
    except msgspec.MsgspecError as error:
        raise DamagedDataError(f"blob {key} is no marker: {error}") from error


def newest_marker(blobs: BlobStore, *, known: int = 0) -> Marker | None:
    """Return the valid marker, None if there is none; begin at number `known`. Raises as `find_marker`.

    Asks for each number by itself, because a listing may be stale.
    """
    newest = find_marker(blobs, known) if known else None
    number = known + 1
    while (following := find_marker(blobs, number)) is not None:
        newest, number = following, number + 1
    return newest


def is_superseded(blobs: BlobStore, number: int) -> bool:
    """Whether a marker after this number exists. Raises StorageUnavailableError."""
    return blobs.stat(marker_key(number + 1)) is not None


def put_marker(blobs: BlobStore, marker: Marker) -> bool:
    """Put a marker durably; return False if a different one has its number. May be repeated.

    Raises as `find_marker`.
    """
    data = msgspec.json.encode({"format": FORMAT} | msgspec.structs.asdict(marker))
    try:
        blobs.put(marker_key(marker.number), data)
    except BlobExistsError:
        return find_marker(blobs, marker.number) == marker
    return True
