"""The pack: a header and envelopes one behind the other. Byte table: docs/reference/formats.md, "Pack".

Lives here: names, header, and what recovery asks of packs. Writing them: `pack_writer.py`.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable, Iterator

from cryostore.chunks.blobs import Appendable, BlobStore
from cryostore.chunks.envelope import HEADER_BYTES, Header, scan
from cryostore.chunks.envelope import MAGIC as ENVELOPE_MAGIC
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, UnknownFormatError

MAGIC = b"CRYP"
VERSION = 1
FIELDS = struct.Struct(">4sB3x16s4x")
CHECK = struct.Struct(">I")
PACK_HEADER_BYTES = FIELDS.size + CHECK.size

ALL_BYTES = 1 << 62

PREFIX = "packs/"
SUFFIX = ".pack"


def pack_key(pack_id: str) -> str:
    """The blob key of a pack; the last two digits of the id spread packs over 256 directories."""
    return f"{PREFIX}{pack_id[-2:].lower()}/{pack_id}{SUFFIX}"


def encode_header(pack_id: str) -> bytes:
    """The bytes every pack begins with."""
    fields = FIELDS.pack(MAGIC, VERSION, uuid.UUID(pack_id).bytes)
    return fields + CHECK.pack(zlib.crc32(fields))


def decode_header(data: bytes) -> str:
    """The pack's id; DamagedDataError if this is no pack header, UnknownFormatError if it is a later one."""
    if len(data) < PACK_HEADER_BYTES:
        raise DamagedDataError("a pack is cut short")
    if data[:4] != MAGIC or CHECK.unpack_from(data, FIELDS.size) != (zlib.crc32(data[: FIELDS.size]),):
        raise DamagedDataError("a pack's header is damaged")
    _, version, pack_id = FIELDS.unpack_from(data)
    if version != VERSION:
        raise UnknownFormatError(f"a pack has format {version}")
    return str(uuid.UUID(bytes=pack_id)).upper()


def list_packs(blobs: BlobStore, after: str = "") -> Iterator[str]:
    """The ids of all packs, in the order of their keys; resume behind the pack `after`."""
    for key in blobs.list(PREFIX, pack_key(after) if after else ""):
        name = key.rpartition("/")[2]
        if name.endswith(SUFFIX):
            yield name.removesuffix(SUFFIX)


def scan_pack(blobs: BlobStore, pack_id: str) -> Iterator[tuple[int, Header]]:
    """Every envelope of a pack: its offset and header, damaged areas and a torn tail left out.

    For rebuilding an index. Reads the pack into memory. A damaged pack header does not hide the envelopes.
    """
    return scan(blobs.get(pack_key(pack_id)))


def settle(blobs: BlobStore, pack_id: str) -> bool:
    """Make all of a pack durable, whatever became of its writer; false if that lives. Raises BlobNotFoundError."""
    if isinstance(blobs, Appendable):
        return blobs.cut(pack_key(pack_id), ALL_BYTES)
    if blobs.stat(pack_key(pack_id)) is None:
        raise BlobNotFoundError(f"pack {pack_id} does not exist")
    return True


def cut_torn_tail(blobs: BlobStore, pack_id: str, *, keep_bytes: int = 0) -> int:
    """Cut what follows the last complete envelope, if the pack's writer is dead; return how many bytes went.

    Never cuts by what a catalog knows: a living process may have flushed an envelope, closed the pack, and not yet
    written the row. What a catalog knows can only keep bytes: nothing is cut if rows reach to `keep_bytes`, beyond the
    last complete envelope, for then it is damage and no torn tail. Nor is cut what a later version may have written.
    """
    key = pack_key(pack_id)
    begin, end = torn_tail(blobs, pack_id, keep_bytes=keep_bytes)
    return end - begin if begin < end and isinstance(blobs, Appendable) and blobs.cut(key, begin) else 0


def torn_tail(blobs: BlobStore, pack_id: str, *, keep_bytes: int = 0) -> tuple[int, int]:
    """Where the bytes that `cut_torn_tail` would cut begin and end; the same twice if there are none."""
    key = pack_key(pack_id)
    if not blobs.stat(key) or not isinstance(blobs, Appendable) or blobs.owned(key):
        return 0, 0
    size = blobs.stat(key) or 0  # nobody appends any more
    begin = min(_walk_headers(blobs, key, size), size)
    tail = blobs.get(key, start := begin)
    for offset, header in scan(tail):
        begin = start + offset + header.envelope_bytes  # something whole follows: the damage is no torn tail
    if begin == size or begin < keep_bytes:
        return size, size
    if _is_later(blobs.get(key, 0, min(PACK_HEADER_BYTES, size)), tail[begin - start :]):
        return size, size
    return begin, size


def _is_later(head: bytes, tail: bytes) -> bool:
    """Whether a later version wrote the pack, or an envelope that begins in its tail."""
    offset = tail.find(ENVELOPE_MAGIC)
    later = _is_unknown(lambda: decode_header(head))
    while not later and offset >= 0:
        later = _is_unknown(lambda: Header.decode(tail, offset))  # noqa: B023 - runs at once
        offset = tail.find(ENVELOPE_MAGIC, offset + 1)
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
    """Where the unbroken row of complete envelopes from the pack's beginning ends. Reads headers only."""
    end = PACK_HEADER_BYTES
    while end + HEADER_BYTES <= size:
        try:
            header = Header.decode(blobs.get(key, end, HEADER_BYTES))
        except DamagedDataError:
            break
        if end + header.envelope_bytes > size:
            break
        end += header.envelope_bytes
    return end
