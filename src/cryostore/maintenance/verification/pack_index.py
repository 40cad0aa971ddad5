"""The index of a pack, made from the pack alone: which envelopes it holds, each proved by opening it.

Needs nothing but the blobs and the keys: no catalog is asked, so that one can be made with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import open_envelope
from cryostore.chunks.packs.reader import PackReader, PlacedEnvelope
from cryostore.core.errors import DamagedDataError

KeyOf = Callable[[bytes], DataKey | None]
"""The data key of this id; None if nobody has it."""


class Found(NamedTuple):
    """A sound envelope in a pack. `envelope_bytes` counts its header, too; `kind` is an `envelope.Kind` as a number."""

    offset: int
    envelope_bytes: int
    key_id: bytes
    digest: bytes
    payload_bytes: int
    kind: int


class Unopened(NamedTuple):
    """An envelope with a whole header that could not be opened: for want of its key or, if `damaged`, as it is."""

    offset: int
    envelope_bytes: int
    key_id: bytes
    damaged: bool


def sound_envelopes(reader: PackReader, key_of: KeyOf) -> Iterator[Found]:
    """Every sound envelope of a pack, in order; each has been opened. What cannot be opened is left out.

    Holds one window of the pack, or one envelope if that is larger, and what it opens to. Raises BlobNotFoundError if
    there is no such pack any more, StorageUnavailableError if it cannot be read now.
    """
    return (found for found in envelopes(reader, key_of) if isinstance(found, Found))


def envelopes(reader: PackReader, key_of: KeyOf) -> Iterator[Found | Unopened]:
    """As `sound_envelopes`, with those that could not be opened among them."""
    for placed in reader.walk():
        yield open_placed(reader, placed, key_of(placed.header.key_id))


def open_placed(reader: PackReader, placed: PlacedEnvelope, key: DataKey | None) -> Found | Unopened:
    """Prove one envelope by opening it."""
    offset, header = placed
    if key is None:
        return Unopened(offset, header.envelope_bytes, header.key_id, damaged=False)
    digest = header.digest(key)
    try:
        open_envelope(reader.range(offset, header.envelope_bytes), key, digest, header.payload_bytes)
    except DamagedDataError:
        return Unopened(offset, header.envelope_bytes, header.key_id, damaged=True)
    return Found(offset, header.envelope_bytes, header.key_id, digest, header.payload_bytes, header.kind)
