"""Recovery of packs whose writer died: making their bytes durable, and cutting a torn tail."""

from __future__ import annotations

from collections.abc import Callable

from cryostore.chunks.blobs import Appendable, BlobStore
from cryostore.chunks.envelope import HEADER_BYTES, MAGIC, EnvelopeHeader, scan
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, decode_header, pack_key
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, UnknownFormatError

ALL_BYTES = 1 << 62


def make_durable(blobs: BlobStore, pack_id: str) -> bool:
    """Make all bytes of a pack durable, unless its writer is alive: then return False. Raises BlobNotFoundError."""
    if isinstance(blobs, Appendable):
        return blobs.cut(pack_key(pack_id), ALL_BYTES)
    if blobs.stat(pack_key(pack_id)) is None:
        raise BlobNotFoundError(f"pack {pack_id} does not exist")
    return True


def cut_torn_tail(blobs: BlobStore, pack_id: str, *, keep_bytes: int = 0) -> int:
    """Cut the bytes behind the last complete envelope, if the pack's writer is dead; return how many were cut.

    The catalog never decides that bytes go: a live process may have flushed an envelope and closed the pack, and not
    have written the row yet. The catalog can only keep bytes: if rows reach to `keep_bytes`, beyond the last complete
    envelope, the tail is damaged and not torn, and nothing is cut. Bytes of a later format are not cut either.
    """
    key = pack_key(pack_id)
    begin, end = torn_tail(blobs, pack_id, keep_bytes=keep_bytes)
    return end - begin if begin < end and isinstance(blobs, Appendable) and blobs.cut(key, begin) else 0


def torn_tail(blobs: BlobStore, pack_id: str, *, keep_bytes: int = 0) -> tuple[int, int]:
    """Return the begin and end of the bytes that `cut_torn_tail` would cut; both are equal if there are none."""
    key = pack_key(pack_id)
    if not blobs.stat(key) or not isinstance(blobs, Appendable) or blobs.owned(key):
        return 0, 0
    size = blobs.stat(key) or 0  # it has no writer, so the size is final
    begin = min(_walk_headers(blobs, key, size), size)
    tail = blobs.get(key, start := begin)
    for offset, header in scan(tail):
        begin = start + offset + header.envelope_bytes  # a whole envelope follows, so the bytes before it are damage
    if begin == size or begin < keep_bytes:
        return size, size
    if _is_later(blobs.get(key, 0, min(PACK_HEADER_BYTES, size)), tail[begin - start :]):
        return size, size
    return begin, size


def _is_later(head: bytes, tail: bytes) -> bool:
    """Whether the pack, or an envelope that begins in its tail, has a later format."""
    offset = tail.find(MAGIC)
    later = _is_unknown(lambda: decode_header(head))
    while not later and offset >= 0:
        later = _is_unknown(lambda: EnvelopeHeader.decode(tail, offset))  # noqa: B023 - runs at once
        offset = tail.find(MAGIC, offset + 1)
    return later


def _is_unknown(decode: Callable[[], object]) -> bool:
    try:
        decode()
    except UnknownFormatError:
        return True
    except DamagedDataError:
        return False
    return False


def _walk_headers(blobs: BlobStore, key: str, size: int) -> int:
    """Return the end of the unbroken sequence of complete envelopes from the start of the pack. Reads headers only."""
    end = PACK_HEADER_BYTES
    while end + HEADER_BYTES <= size:
        try:
            header = EnvelopeHeader.decode(blobs.get(key, end, HEADER_BYTES))
        except DamagedDataError:
            break
        if end + header.envelope_bytes > size:
            break
        end += header.envelope_bytes
    return end
