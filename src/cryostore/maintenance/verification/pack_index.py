"""Index of a pack, read from the pack alone: its envelopes, each proved by opening it.

It needs the blob store and the keys, but no catalog, so that a catalog can be rebuilt with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import open_envelope
from cryostore.chunks.packs.reader import PackReader, PlacedEnvelope
from cryostore.core.errors import DamagedDataError

KeyOf = Callable[[bytes], DataKey | None]
"""Returns the data key with this id; None if it is missing."""


class Found(NamedTuple):
    """A sound envelope in a pack. `envelope_bytes` includes the header; `kind` is the number of a `PayloadKind`."""

    offset: int
    envelope_bytes: int
    key_id: bytes
    digest: bytes
    payload_bytes: int
    kind: int


class Unopened(NamedTuple):
    """An envelope with a whole header that cannot be opened: its key is missing or, if `damaged`, its bytes are bad."""

    offset: int
    envelope_bytes: int
    key_id: bytes
    damaged: bool


def sound_envelopes(reader: PackReader, key_of: KeyOf) -> Iterator[Found]:
    """Yield every envelope of a pack that can be opened, in order.

    Holds one window of the pack, or one envelope if that is larger, and its content. Raises BlobNotFoundError if the
    pack is gone, StorageUnavailableError if it cannot be read now.
    """
    return (found for found in envelopes(reader, key_of) if isinstance(found, Found))


def envelopes(reader: PackReader, key_of: KeyOf) -> Iterator[Found | Unopened]:
    """As `sound_envelopes`, but also yield the envelopes that could not be opened."""
    for placed in reader.walk():
        yield open_placed(reader, placed, key_of(placed.header.key_id))


def open_placed(reader: PackReader, placed: PlacedEnvelope, key: DataKey | None) -> Found | Unopened:
    """Prove an envelope by opening it."""
    offset, header = placed
    if key is None:
        return Unopened(offset, header.envelope_bytes, header.key_id, damaged=False)
    digest = header.digest(key)
    try:
        open_envelope(reader.range(offset, header.envelope_bytes), key, digest, header.payload_bytes)
    except DamagedDataError:
        return Unopened(offset, header.envelope_bytes, header.key_id, damaged=True)
    return Found(offset, header.envelope_bytes, header.key_id, digest, header.payload_bytes, header.kind)
