"""Responses: encoding of an operation's output, and decoding to one.

Server: `encode`; the server adds `x-amzn-RequestId`. Client: `decode`, which raises the error that the server answered.
An output is either a JSON document, or headers and a raw body; an empty one is the document `{}`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from cryostore.core.compression import CompressedPayload, decompress_whole
from cryostore.core.digest import Payload
from cryostore.core.errors import DamagedDataError
from cryostore.core.limits import MIB
from cryostore.core.time import EPOCH_SECONDS_MAX, EPOCH_SECONDS_MIN
from cryostore.model.errors import ServiceInternalException
from cryostore.model.operation import Body, Declaration, Document, Header, Member, Output, Timestamp, members_of
from cryostore.wire import error, scalar
from cryostore.wire.message import ANSWER_BYTES_MAX, Response, header_text, header_value

JSON_HEADER = ("content-type", "application/json")
BYTES_HEADER = ("content-type", "application/octet-stream")
ENCODING_HEADER = "content-encoding"
ZSTD = "zstd"
DOCUMENT_BYTES_MAX = 8 * MIB
"""Of an answer in JSON: a page has 100 items, and the longest text or blob in it is 4 MiB. Decoded, it takes more."""
INTEGER_MAX = 2**63 - 1
ENCODER = msgspec.json.Encoder()


class ResponsePlan:
    """A declaration, compiled for encoding and decoding its outputs."""

    def __init__(self, declaration: Declaration) -> None:
        members = declaration.output_members
        self.headers = tuple(member for member in members if isinstance(member.binding, Header))
        self.body = next((member for member in members if isinstance(member.binding, Body)), None)
        documents = any(isinstance(member.binding, Document) for member in members)
        assert not (documents and (self.headers or self.body)), "an output is a document, or headers and a raw body"
        self.body_length = f"{self.body.attribute}_length" if self.body else ""
        self.raw = bool(self.headers or self.body)
        self.decoder = msgspec.json.Decoder(declaration.output)
        self.bytes_max = ANSWER_BYTES_MAX if self.raw else DOCUMENT_BYTES_MAX


PLANS: dict[str, ResponsePlan] = {}


def _plan(declaration: Declaration) -> ResponsePlan:
    plan = PLANS.get(declaration.name)
    if plan is None:
        plan = PLANS[declaration.name] = ResponsePlan(declaration)
    return plan


def bytes_max(declaration: Declaration) -> int:
    """Return the limit of an answer to an operation, in bytes."""
    return _plan(declaration).bytes_max


def encode(declaration: Declaration, output: Output) -> Response:
    """Encode an output as a response."""
    plan = _plan(declaration)
    if not plan.raw:
        return Response(declaration.status, [JSON_HEADER], Payload(ENCODER.encode(output)))
    headers = [BYTES_HEADER]
    for member in plan.headers:
        value = getattr(output, member.attribute)
        if value is not None:
            headers.append((member.wire_name, header_text(scalar.format_value(member.type, value))))
    body = getattr(output, plan.body.attribute) if plan.body else None
    if isinstance(body, CompressedPayload):
        headers.append((ENCODING_HEADER, ZSTD))
    return Response(declaration.status, headers, body or Payload())


def decode(declaration: Declaration, response: Response) -> Output:
    """Decode the output of a response, which a proxy may have compressed.

    Raises the modelled error for any status but a success, and ServiceInternalException for a success that cannot be
    decoded, which a caller may retry like any other failure of a server.
    """
    if not 200 <= response.status < 300:
        with contextlib.suppress(ValueError, DamagedDataError):  # otherwise the status alone tells the error
            response = _decoded(response, error.DOCUMENT_BYTES_MAX)
        raise error.decode(response)
    plan = _plan(declaration)
    try:
        response = _decoded(response, plan.bytes_max)
        if plan.raw:
            return _raw(declaration, plan, response)
        output = plan.decoder.decode(response.body.data if len(response.body) else b"{}")
        _check(declaration.output_members, output)
        return output
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError, DamagedDataError) as failure:
        raise ServiceInternalException(f"the answer to {declaration.name} cannot be read: {failure}") from failure


def _raw(declaration: Declaration, plan: ResponsePlan, response: Response) -> Output:
    headers = {key.lower(): value for key, value in response.headers}
    found: dict[str, Any] = {}
    for member in plan.headers:
        if (text := headers.get(member.wire_name)) is not None:
            found[member.attribute] = _value(member, header_value(text))
    if plan.body and (len(response.body) or plan.body.required or plan.body_length in found):
        found[plan.body.attribute] = response.body
    return declaration.output(**found)


def accepts_zstd(accept_encoding: str | None) -> bool:
    """Whether an Accept-Encoding header names and accepts zstd (RFC 9110, 12.5.3)."""
    for choice in (accept_encoding or "").lower().split(","):
        coding, _, parameters = choice.partition(";")
        if coding.strip() == ZSTD:
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", parameters)
    return False


def _check(members: Sequence[Member], found: Any) -> None:
    """Raise ValueError for a number or a time out of range."""
    for member in members:
        value = getattr(found, member.attribute)
        if value is None:
            continue
        if member.type is Timestamp and not EPOCH_SECONDS_MIN <= value <= EPOCH_SECONDS_MAX:
            raise ValueError(f"{member.name} is {value!r}, which is no time between the years 1 and 9999")
        if member.type is int and abs(value) > INTEGER_MAX:
            raise ValueError(f"{member.name} has more than 63 bits")
        if member.shape is not None:
            for each in value if isinstance(value, list) else [value]:
                _check(members_of(member.shape), each)


def _decoded(response: Response, bytes_max: int) -> Response:
    """Return the response with its content encoding undone. Raises ValueError and DamagedDataError."""
    encoding = response.header(ENCODING_HEADER)
    if len(response.body) > bytes_max:
        raise ValueError(f"{len(response.body)} bytes are too many")
    if encoding in (None, "identity"):
        return response
    if encoding != ZSTD:
        raise ValueError(f"its body is encoded as {encoding!a}")
    return replace(response, body=Payload(decompress_whole(response.body.data, bytes_max)))


def _value(member: Member, text: str) -> scalar.Value:
    parse = scalar.parser(member.type)
    return text if parse is None else parse(text)
