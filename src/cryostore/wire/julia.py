"""The request form of AWS.jl: every member but the labels in one JSON object (Backup Storage A.5).

Keys are the query names, and the API name for the raw body. A blob is an array of integers, which has one reading, or a
string, which has up to three: the text itself, the bytes that base64 spells, or (for a client that put one character
per byte) Latin-1. The right one is the one that has the length and the SHA-256 given beside it. With neither given, or
none that fits, it is the text itself, and the service refuses what does not fit.
"""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Iterator
from typing import Any

from cryostore.core.digest import Checksum, Payload
from cryostore.model.errors import invalid_argument
from cryostore.model.operation import Declaration, Document, Member, Query
from cryostore.wire.document import Json, converted, parse, parse_bytes

Values = dict[str, Any]


class JuliaForm:
    """One operation in this form, compiled."""

    def __init__(self, declaration: Declaration) -> None:
        self.signing_name = declaration.api.value
        self.members = {member.wire_name: member for member in declaration.at(Query)}
        self.members |= {member.name: member for member in declaration.at(Document)}
        self.blob = declaration.body
        attributes = {member.attribute for member in declaration.members}
        prefix = f"{self.blob.attribute}_" if self.blob and f"{self.blob.attribute}_length" in attributes else ""
        self.length, self.checksum = f"{prefix}length", f"{prefix}checksum"

    def decode(self, body: Payload, head: Values) -> Values:
        """The values of the object by attribute, absent ones left out.

        Raises the API's error for a wrong argument, for one that contradicts `head`, and on an operation with a raw
        body for an unknown key: that may be somebody's data under the wrong Content-Type.
        """
        document = (parse_bytes if self.blob else parse)(self.signing_name, body.data)
        values: Values = {}
        blob = None
        for key, value in document.items():
            if value is None:
                continue
            if self.blob and key == self.blob.name:
                blob = value
            elif member := self.members.get(key):
                values[member.attribute] = self._converted(member, value, head)
            elif self.blob:
                raise invalid_argument(self.signing_name, "the body", key, self._unknown_rule())
        if self.blob and blob is not None:
            values[self.blob.attribute] = self._payload(self.blob, blob, values)
        return values

    def _converted(self, member: Member, value: Json, head: Values) -> Json:
        found = converted(self.signing_name, member, value, member.name)
        if head.get(member.attribute, found) != found:
            raise invalid_argument(self.signing_name, member.name, value, "must be the same in query and body")
        return found

    def _unknown_rule(self) -> str:
        return "is no argument; a raw body must not have Content-Type application/json"

    def _payload(self, member: Member, value: Json, values: Values) -> Payload:
        if isinstance(value, list):
            try:
                return Payload(bytes(value))
            except (ValueError, TypeError):
                raise invalid_argument(
                    self.signing_name, member.name, None, "must be an array of integers 0 to 255"
                ) from None
        if not isinstance(value, str):
            raise invalid_argument(self.signing_name, member.name, None, "must be a text or an array of integers")
        return _fitting(list(readings(value)), values.get(self.length), _digest(values.get(self.checksum)))


def readings(text: str) -> Iterator[bytes]:
    """The bytes a string may stand for, the most likely first."""
    yield text.encode("utf-8", "surrogateescape" if _escaped(text) else "surrogatepass")
    with contextlib.suppress(ValueError):
        yield binascii.a2b_base64(text, strict_mode=True)
    with contextlib.suppress(UnicodeEncodeError):
        if not text.isascii():
            yield text.encode("latin-1")


def _escaped(text: str) -> bool:
    return all(not "\ud800" <= character <= "\udfff" or "\udc80" <= character <= "\udcff" for character in text)


def _fitting(candidates: list[bytes], length: int | None, digest: bytes | None) -> Payload:
    for data in candidates:
        payload = Payload(data)
        if length in (None, len(data)) and digest in (None, payload.sha256 if digest else None):
            return payload
    return Payload(candidates[0])


def _digest(checksum: str | None) -> bytes | None:
    try:
        return None if checksum is None else Checksum.parse(checksum).digest
    except ValueError:
        return None  # refused with its rule when all members are checked
