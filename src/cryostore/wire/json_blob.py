"""Blobs in JSON, as AWS.jl sends them: an array of integers, or a string with up to three readings.

The readings of a string are the text itself, the bytes that base64 encodes, or Latin-1 (from a client that writes one
character for each byte). All decoders work on pieces of the JSON text, so memory holds no more than the JSON and one
blob.
"""

from __future__ import annotations

import binascii
import codecs
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import msgspec

from cryostore.core.digest import Buffer, Payload
from cryostore.core.limits import KIB

PIECE_BYTES = 64 * KIB
TEXT_PIECE = re.compile(
    rb"(?:[^\\]{1,512}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|\\u[0-9a-fA-F]{4}|\\[^u]){1,512}+"
)
"""A piece of a JSON string that can be decoded by itself: no escape and no surrogate pair is cut."""
NUMBERS = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0, le=255)]])
NOT_NUMBERS = "must be an array of integers 0 to 255"

Pieces = Iterable[Buffer]
Reading = Callable[[Pieces], Iterator[Buffer]]


def payload(value: msgspec.Raw, *, length: int | None, digest: bytes | None, bytes_max: int) -> Payload:
    """Decode a JSON value to bytes; at most `bytes_max` + 1 of them are returned.

    `length` and `digest`, where given, decide which reading of a string is meant. Raises ValueError.
    """
    text = memoryview(value)
    if bytes(text[:1]) == b"[":
        return _built(_numbers(text[1:-1]), bytes_max)
    if bytes(text[:1]) != b'"':
        raise ValueError("must be a text or an array of integers")
    text = text[1:-1]
    for reading in READINGS if (length, digest) != (None, None) else ():
        if (found := _fitting(reading, text, length, digest)) is not None:
            return _built(reading(_pieces(text)), bytes_max, sha256=found)
    return _built(_literal(_pieces(text)), bytes_max)


def _fitting(reading: Reading, text: memoryview, length: int | None, digest: bytes | None) -> bytes | None:
    """Return the SHA-256 of a reading if it has this length and digest; None otherwise."""
    whole, count = hashlib.sha256(), 0
    try:
        for piece in reading(_pieces(text)):
            whole.update(piece)
            count += len(piece)
    except ValueError:
        return None
    found = whole.digest()
    return found if length in (None, count) and digest in (None, found) else None


def _built(pieces: Pieces, bytes_max: int, *, sha256: bytes | None = None) -> Payload:
    whole = bytearray()
    for piece in pieces:
        whole += piece
        if len(whole) > bytes_max:
            return Payload(whole[: bytes_max + 1])
    return Payload(whole, sha256=sha256)


def _pieces(text: memoryview) -> Iterator[bytes]:
    """Yield the decoded pieces of a JSON string without its quotes; bytes that are not UTF-8 stay as they are."""
    start = 0
    while start < len(text):
        found = TEXT_PIECE.match(text, start)
        if found is None:
            raise ValueError("must be a JSON string")
        piece, start = found[0], found.end()
        if b"\\" in piece:
            text_piece = json.loads(f'"{piece.decode("utf-8", "surrogateescape")}"', strict=False)
            piece = text_piece.encode("utf-8", "surrogateescape")
        yield piece


def _numbers(text: memoryview) -> Iterator[bytes]:
    start = 0
    while start < len(text):
        piece = bytes(text[start : start + PIECE_BYTES])
        start += len(piece)
        if start < len(text):
            comma = piece.rfind(b",")
            if comma < 0:
                raise ValueError(NOT_NUMBERS)
            start -= len(piece) - comma - 1
            piece = piece[:comma]
        try:
            yield bytes(NUMBERS.decode(b"[%b]" % piece))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ValueError(NOT_NUMBERS) from None


def _literal(pieces: Pieces) -> Iterator[Buffer]:
    yield from pieces


def _base64(pieces: Pieces) -> Iterator[Buffer]:
    """Decode base64. Raises ValueError for other text and for non-canonical base64."""
    rest = b""
    for piece in itertools.chain(pieces, (None,)):
        if piece is None:
            yield binascii.a2b_base64(rest, strict_mode=True)
            return
        rest += piece
        whole = (len(rest) - 1) // 4 * 4  # the last four characters may be padded
        if b"=" in rest[:whole]:
            raise ValueError("padding inside base64")
        yield binascii.a2b_base64(rest[:whole], strict_mode=True)
        rest = rest[whole:]


def _latin(pieces: Pieces) -> Iterator[Buffer]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for piece in pieces:
        yield decoder.decode(piece).encode("latin-1")
    decoder.decode(b"", final=True)


READINGS: tuple[Reading, ...] = (_literal, _base64, _latin)
"""In order of likelihood."""
