"""Requests of AWS.jl, where they differ from those of the SDKs (Backup Storage A.5).

- Every member of a request except the labels in one JSON object: `JuliaForm`. Keys are the query names, and the API
  name for the raw body. The object may be as long as a blob, so only declared members are decoded: the decoder checks
  the syntax, refuses an unknown key, and returns each value as a slice of the body.
- A blob in that object, as an array of integers, which has one reading, or as a string, which has up to three: the text
  itself, the bytes that base64 encodes, or Latin-1 (from a client that writes one character for each byte). The right
  reading has the length and the SHA-256 given beside it. If neither is given, or no reading matches, the blob is the
  text itself, and the service refuses it if it is wrong. All decoders work on pieces of the JSON text, so memory holds
  no more than the JSON and one blob.
- Bytes beyond ASCII in a request line: `escape_line` and `restore_url` take them past a strict parser.
"""

from __future__ import annotations

import binascii
import codecs
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import msgspec

from cryostore.core.digest import Buffer, Checksum, Payload
from cryostore.core.limits import KIB, Limits
from cryostore.model.errors import ModelError, invalid_argument
from cryostore.model.operation import Declaration, Document, Member, Query
from cryostore.wire.document import NOT_AN_OBJECT, Json, converted, decoded, parse

Values = dict[str, Any]
UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
UNKNOWN_KEY_RULE = "is no argument; a raw body must not have Content-Type application/json"
PIECE_BYTES = 64 * KIB
TEXT_PIECE = re.compile(
    rb"(?:[^\\]{1,512}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|\\u[0-9a-fA-F]{4}|\\[^u]){1,512}+"
)
"""A piece of a JSON string that can be decoded by itself: no escape and no surrogate pair is cut."""
NUMBERS = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0, le=255)]])
NOT_NUMBERS = "must be an array of integers 0 to 255"
Pieces = Iterable[Buffer]
Reading = Callable[[Pieces], Iterator[Buffer]]
NOT_ASCII = re.compile(rb"[\x80-\xff]")
ESCAPED = re.compile(rb"%~([89A-F][0-9A-F])")


class JuliaForm:
    """The compiled decoder of one operation in the form of AWS.jl: one JSON object."""

    def __init__(self, declaration: Declaration) -> None:
        self.signing_name = declaration.api.value
        self.members = {member.wire_name: member for member in declaration.at(Query)}
        self.members |= {member.name: member for member in declaration.at(Document)}
        self.blob = declaration.body
        attributes = {member.attribute for member in declaration.members}
        prefix = f"{self.blob.attribute}_" if self.blob and f"{self.blob.attribute}_length" in attributes else ""
        self.length, self.checksum = f"{prefix}length", f"{prefix}checksum"
        self.slices = _slices([*self.members, self.blob.name]) if self.blob else None

    def decode(self, body: Payload, head: Values, limits: Limits, *, blob_bytes_max: int) -> Values:
        """Return the values of the object by attribute, without absent ones.

        Raises the API's error for a wrong argument, for one that contradicts `head`, and, for an operation with a raw
        body, for an unknown key: the body may be data under the wrong Content-Type. A blob is decoded up to one byte
        more than `blob_bytes_max`.
        """
        blob = None
        if self.slices:
            found = self._sliced(self.slices, body)
            blob = found.pop(self.blob.name, None) if self.blob else None
            if sum(len(memoryview(value)) for value in found.values()) > limits.request_document_bytes_max:
                rule = f"must be at most {limits.request_document_bytes_max} bytes long without its blob"
                raise invalid_argument(self.signing_name, "the body", None, rule)
            document = {key: decoded(self.signing_name, value, key) for key, value in found.items()}
        else:
            document = parse(self.signing_name, body.data)
        values: Values = {}
        for key, value in document.items():
            member = self.members.get(key)
            if member is not None and value is not None:
                values[member.attribute] = self._converted(member, value, head)
        if self.blob and blob is not None and bytes(memoryview(blob)[:1]) != b"n":
            values[self.blob.attribute] = self._payload(self.blob, blob, values, blob_bytes_max)
        return values

    def _sliced(self, slices: msgspec.json.Decoder[Any], body: Payload) -> dict[str, msgspec.Raw]:
        """Return the values that are present, not decoded, by their keys."""
        try:
            found = slices.decode(body.data or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._not_this_form(error) from None
        names = {field.name: field.encode_name for field in msgspec.structs.fields(found)}
        return {
            names[name]: value for name, value in msgspec.structs.asdict(found).items() if value is not msgspec.UNSET
        }

    def _not_this_form(self, error: Exception) -> ModelError:
        if unknown := UNKNOWN_KEY.fullmatch(str(error)):
            return invalid_argument(self.signing_name, "the body", unknown[1], UNKNOWN_KEY_RULE)
        return invalid_argument(self.signing_name, "the body", None, f"{NOT_AN_OBJECT}: {error}")

    def _converted(self, member: Member, value: Json, head: Values) -> Json:
        found = converted(self.signing_name, member, value, member.name)
        if head.get(member.attribute, found) != found:
            raise invalid_argument(self.signing_name, member.name, value, "must be the same in query and body")
        return found

    def _payload(self, member: Member, value: msgspec.Raw, values: Values, bytes_max: int) -> Payload:
        try:
            return decode_blob(
                value, length=values.get(self.length), digest=_digest(values.get(self.checksum)), bytes_max=bytes_max
            )
        except ValueError as error:
            raise invalid_argument(self.signing_name, member.name, None, str(error)) from None


def _slices(names: list[str]) -> msgspec.json.Decoder[Any]:
    """Return a decoder of objects with these keys and no others; it does not decode their values."""
    attributes = {f"member_{index}": name for index, name in enumerate(names)}
    fields = [(attribute, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for attribute in attributes]
    kind = msgspec.defstruct("Slices", fields, rename=attributes, forbid_unknown_fields=True)
    return msgspec.json.Decoder(kind)


def _digest(checksum: str | None) -> bytes | None:
    try:
        return None if checksum is None else Checksum.parse(checksum).digest
    except ValueError:
        return None  # the check of all members refuses it, with its rule


def decode_blob(value: msgspec.Raw, *, length: int | None, digest: bytes | None, bytes_max: int) -> Payload:
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


def escape_line(data: bytes) -> bytes:
    """Return the first bytes of a request with the bytes beyond ASCII of their first line escaped."""
    end = data.find(b"\n")
    line = data if end < 0 else data[:end]
    return data if line.isascii() else NOT_ASCII.sub(_escape, line) + data[len(line) :]


def restore_url(url: bytes) -> bytes:
    """Return the path and query as they were received, without the escapes of `escape_line`."""
    return ESCAPED.sub(_restore, url) if b"%~" in url else url


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%~%02X" % match[0][0]


def _restore(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode())
