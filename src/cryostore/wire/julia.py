"""The request form of AWS.jl: every member except the labels in one JSON object (Backup Storage A.5).

Keys are the query names, and the API name for the raw body. A blob is an array of integers, which has one reading, or a
string, which has up to three (`json_blob`). The right reading has the length and the SHA-256 given beside it. If
neither is given, or no reading matches, the blob is the text itself, and the service refuses it if it is wrong.

The object may be as long as a blob, so only declared members are decoded: the decoder checks the syntax, refuses an
unknown key, and returns each value as a slice of the body.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from cryostore.core.digest import Checksum, Payload
from cryostore.core.limits import Limits
from cryostore.model.errors import ModelError, invalid_argument
from cryostore.model.operation import Declaration, Document, Member, Query
from cryostore.wire.document import NOT_AN_OBJECT, Json, converted, decoded, parse
from cryostore.wire.json_blob import payload

Values = dict[str, Any]
UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
UNKNOWN_KEY_RULE = "is no argument; a raw body must not have Content-Type application/json"


class JuliaForm:
    """The compiled decoder of one operation in this form."""

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
            return payload(
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
