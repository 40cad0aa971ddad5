"""Markers: blobs that say to which store the blobs beside them belong. Byte table: docs/reference/formats.md, "Marker".

A shared store has its catalog in one place and its blobs in another; a marker and a row of the catalog name each
other, so that two halves that do not belong together never meet. Markers are numbered from 1, and the newest holds:
whoever makes another catalog for the same blobs puts the next one, and who goes by an older one is shut out.

Does not live here: the row of the catalog (`service.opening.identity`).
"""

from __future__ import annotations

import msgspec

from cryostore.chunks.blobs import BlobStore
from cryostore.core.errors import BlobExistsError, BlobNotFoundError, DamagedDataError, UnknownFormatError

PREFIX = "store/"
FORMAT = 1


class Marker(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a marker says. Plain: it is read before any key is at hand, and holds no secret.

    `region` and `account_id` are those of the store's ARNs. `token` tells the marker from another of the same number.
    """

    store_id: str
    number: int
    token: str
    region: str
    account_id: str


class _Format(msgspec.Struct):
    """What every version of a marker says."""

    format: int


def marker_key(number: int) -> str:
    """The blob key of a marker."""
    return f"{PREFIX}{number:08d}.json"


def find_marker(blobs: BlobStore, number: int) -> Marker | None:
    """The marker of this number. Raises DamagedDataError (UnknownFormatError), StorageUnavailableError."""
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
    """The marker that holds; None if there is none. `known`: a number from which to look. Raises as `find_marker`.

    Asks for each number by itself: no listing is believed.
    """
    newest = find_marker(blobs, known) if known else None
    number = known + 1
    while (following := find_marker(blobs, number)) is not None:
        newest, number = following, number + 1
    return newest


def is_superseded(blobs: BlobStore, number: int) -> bool:
    """Whether a marker after this number is there. Raises StorageUnavailableError."""
    return blobs.stat(marker_key(number + 1)) is not None


def put_marker(blobs: BlobStore, marker: Marker) -> bool:
    """Put a marker, durably; false if another one has its number. May be repeated. Raises as `find_marker` does."""
    data = msgspec.json.encode({"format": FORMAT} | msgspec.structs.asdict(marker))
    try:
        blobs.put(marker_key(marker.number), data)
    except BlobExistsError:
        return find_marker(blobs, marker.number) == marker
    return True
