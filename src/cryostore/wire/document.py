"""JSON documents of requests: lenient decoding, with the API's own errors.

Decoding takes two passes, because most documents are right. msgspec's typed decoder reads a document in one go. Only a
document that it refuses is read again, member by member, to accept what clients do send (timestamps as text, A.5's
numbers as text) or to name the member, its value and the rule. Null means absent; unknown members are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args, get_origin

import msgspec

from cryostore.core.digest import Buffer
from cryostore.model.errors import invalid_argument, missing_argument
from cryostore.model.operation import Member, Shape, Timestamp, members_of
from cryostore.wire import scalar

NOT_AN_OBJECT = "must be a JSON object"
VALUES_MAX = 65_536
"""Of one document. The largest useful one, a LinkChunks, has some 5,000."""
VALUE_BYTES_MAX = 200
CHARACTER_BYTES_MAX = 4
"""The most memory that a value takes beside its characters, and that each character takes."""

Json = Any
"""A decoded JSON value: a dict, list, text, number, boolean or None."""


class Documents:
    """The compiled decoder of one operation's document members."""

    def __init__(self, signing_name: str, members: Iterable[Member]) -> None:
        self.signing_name = signing_name
        self.members = tuple(members)
        fields = [(member.attribute, member.type | None, None) for member in self.members]
        self.typed = msgspec.json.Decoder(msgspec.defstruct("Document", fields, rename="pascal"))

    def decode(self, data: Buffer) -> dict[str, Any]:
        """Return the values by attribute, without absent ones. Raises the API's error for a wrong argument."""
        if not data:
            return {}
        require_few_values(self.signing_name, data)
        try:
            found = msgspec.structs.asdict(self.typed.decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = self.explain(parse(self.signing_name, data))
        return {attribute: value for attribute, value in found.items() if value is not None}

    def explain(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the values by attribute, read one by one, so that the error names the first wrong one."""
        return {
            member.attribute: converted(self.signing_name, member, document.get(member.name), member.name)
            for member in self.members
        }


def parse(signing_name: str, data: Buffer) -> dict[str, Any]:
    """Return the JSON object in `data`; empty data is an empty object. Raises the API's error for a wrong argument."""
    require_few_values(signing_name, data)
    try:
        document = msgspec.json.decode(data) if data else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_argument(signing_name, "the body", None, f"{NOT_AN_OBJECT}: {error}") from None
    if not isinstance(document, dict):
        raise invalid_argument(signing_name, "the body", None, NOT_AN_OBJECT)
    return document


def decoded(signing_name: str, value: msgspec.Raw, where: str) -> Json:
    """Decode one value of a document. Raises the API's error, which names the value as `where`."""
    require_few_values(signing_name, memoryview(value))
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_argument(signing_name, where, None, f"must be a JSON value: {error}") from None


def decoded_bytes_max(data: Buffer) -> int:
    """Return the most memory that the values of a document can take."""
    return len(data) * CHARACTER_BYTES_MAX + _values_max(data) * VALUE_BYTES_MAX


def require_few_values(signing_name: str, data: Buffer) -> None:
    """Raise the API's error for a document of more than VALUES_MAX values: decoded, it would be many times larger."""
    if _values_max(data) > VALUES_MAX:
        raise invalid_argument(signing_name, "the body", None, f"must have at most {VALUES_MAX} values")


def _values_max(data: Buffer) -> int:
    """Return at least the number of values: each but the first follows one of these, which texts may contain too."""
    text = data if isinstance(data, (bytes, bytearray)) else bytes(data)
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def converted(signing_name: str, member: Member, value: Json, where: str) -> Json:
    """Convert a JSON value to its declared type; None if absent. Raises the API's error, which names it as `where`."""
    if value is None:
        return None
    try:
        return _converted(signing_name, member, value, where)
    except ValueError as error:
        raise invalid_argument(signing_name, where, None if member.sensitive else value, str(error)) from None


def _converted(signing_name: str, member: Member, value: Json, where: str) -> Json:
    if member.shape is None:
        return _plain(member.type, value)
    if get_origin(member.type) is list:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        return [_shape(signing_name, member.shape, item, f"{where}[{index}]") for index, item in enumerate(value)]
    return _shape(signing_name, member.shape, value, where)


def _shape(signing_name: str, shape: type[Shape], value: Json, where: str) -> Shape:
    if not isinstance(value, dict):
        raise invalid_argument(signing_name, where, None, "must be a structure")
    found = {}
    for member in members_of(shape):
        place = f"{where}.{member.name}"
        inner = converted(signing_name, member, value.get(member.name), place)
        if inner is not None:
            found[member.attribute] = inner
        elif member.required:
            raise missing_argument(signing_name, place)
    return shape(**found)


def _plain(kind: scalar.DeclaredType, value: Json) -> scalar.Value:
    container: Any = get_origin(kind)
    if container is list:
        return [_plain(get_args(kind)[0], item) for item in _instance(value, list, "a list")]
    if container is dict:
        entries = _instance(value, dict, "a map of texts")
        return {key: _instance(item, str, "a map of texts") for key, item in entries.items()}
    if kind in (int, bool, Timestamp):
        return _number(kind, value)
    return _instance(value, str, "a text")


def _number(kind: scalar.DeclaredType, value: Json) -> scalar.Value:
    if kind is bool and isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = value
    else:  # other values become the empty text, which is no number
        text = repr(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
    parse = scalar.parser(kind)
    assert parse is not None
    return parse(text.removesuffix(".0") if isinstance(value, float) and kind is int else text)


def _instance(value: Json, kind: type, words: str) -> Json:
    if not isinstance(value, kind):
        raise ValueError(f"must be {words}")  # noqa: TRY004 - one exception type for every wrong value
    return value
