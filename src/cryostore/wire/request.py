"""Requests: decoding to an operation, and encoding of one.

Server: `decode_head` decodes everything but the body, and refuses a bad head before a byte of the body is read;
`Head.finish` adds the body. Client: `encode`. The declaration says where each member travels.

The server accepts two forms of a request (Backup Storage A.4, A.5):

- The form of the SDKs: labels, query members, and a body that is raw bytes or a JSON document.
- The form of AWS.jl: every member except the labels in one JSON object, whose keys are the query names. The server
  recognises it by a signed `Content-Type: application/json` on an operation that has a raw body and none of its members
  in the query (so a raw body that happens to be labelled JSON stays raw bytes), or that has query members and no raw
  body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from cryostore.core.digest import Payload
from cryostore.core.limits import Limits
from cryostore.model.errors import invalid_argument, missing_argument
from cryostore.model.operation import Body, Declaration, Document, Label, Member, Operation, Query, check_member
from cryostore.model.rules import Length
from cryostore.wire import scalar
from cryostore.wire.document import Documents, decoded_bytes_max
from cryostore.wire.julia import JuliaForm
from cryostore.wire.message import Request, media_type
from cryostore.wire.route import Route

IGNORED_BODY_BYTES_MAX = 1024
"""The largest body of an operation that has none, such as AWS.jl's `{}` on GET. It is ignored."""

Values = dict[str, Any]


class RequestPlan:
    """A declaration, compiled for decoding and encoding its requests."""

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.signing_name = declaration.api.value
        self.labels = tuple((member, scalar.parser(member.type)) for member in declaration.at(Label))
        self.query = {member.wire_name: (member, scalar.parser(member.type)) for member in declaration.at(Query)}
        self.documents = Documents(self.signing_name, declaration.at(Document)) if declaration.at(Document) else None
        self.document_members = declaration.at(Document)
        self.body = declaration.body
        self.body_length = body_length(declaration.members, self.body)
        self.body_prefix = (self.body_length or "length").removesuffix("length")
        self.julia = JuliaForm(declaration) if self.query or self.body else None
        self.head_members = tuple(m for m in declaration.members if isinstance(m.binding, (Label, Query)))
        self.rest_members = tuple(m for m in declaration.members if isinstance(m.binding, (Document, Body)))
        self.path = tuple(declaration.path.split("/"))

    def body_bytes_max(self, limits: Limits, *, julia: bool) -> int:
        """Return the limit of a request's body in bytes, in one of the two forms."""
        if self.body is None:
            return limits.request_document_bytes_max if julia or self.documents else IGNORED_BODY_BYTES_MAX
        return limits.request_document_blob_bytes_max if julia else self.raw_bytes_max(limits)

    def raw_bytes_max(self, limits: Limits) -> int:
        """Return the limit of the raw body in bytes; 0 for an operation without one."""
        if self.body is None:
            return 0
        high = next(rule.high for rule in self.body.rules if isinstance(rule, Length))
        return high if isinstance(high, int) else int(getattr(limits, high))


def body_length(members: tuple[Member, ...], body: Member | None) -> str | None:
    """Return the attribute that carries the length of the raw body; None if there is none."""
    attributes = {member.attribute for member in members}
    names = (f"{body.attribute}_length", "length") if body else ()
    return next((name for name in names if name in attributes), None)


PLANS: dict[str, RequestPlan] = {}


def plan_of(declaration: Declaration) -> RequestPlan:
    """Return the compiled plan of a declaration."""
    plan = PLANS.get(declaration.name)
    if plan is None:
        plan = PLANS[declaration.name] = RequestPlan(declaration)
    return plan


@dataclass(slots=True)
class Head:
    """A decoded and checked request head. The server then reads at most `body_bytes_max` bytes and calls `finish`."""

    declaration: Declaration
    body_bytes_max: int
    plan: RequestPlan
    values: Values
    limits: Limits
    julia: bool

    def blob_bytes_max(self, body_bytes: int) -> int:
        """Return the memory that a blob takes beside a body of this length that contains it as JSON."""
        return min(body_bytes, self.plan.raw_bytes_max(self.limits)) if self.julia else 0

    def values_bytes_max(self, body: Payload) -> int:
        """Return the most memory that the values of a JSON document take beside it."""
        if self.julia:
            return 0 if self.plan.body else decoded_bytes_max(body.data)
        return decoded_bytes_max(body.data) if self.plan.documents else 0

    def finish(self, body: Payload) -> Operation[Any]:
        """Return the operation, complete and checked. Raises the API's error for a wrong or missing argument."""
        plan, values = self.plan, self.values
        checked = plan.rest_members
        if self.julia and plan.julia:
            values = values | plan.julia.decode(
                body, values, self.limits, blob_bytes_max=plan.raw_bytes_max(self.limits)
            )
            checked = self.declaration.members
        elif plan.documents:
            values = values | plan.documents.decode(body.data)
        elif plan.body and (len(body) or plan.body.required or plan.body_length in values):
            values = {**values, plan.body.attribute: body}
        _check(plan, checked, values, self.limits)
        return self.declaration.input(**values)


def decode_head(route: Route, request: Request, limits: Limits, *, content_type: str | None = None) -> Head:
    """Decode and check a request without its body.

    `content_type` is the signed one: a header that may be altered on the way must not decide how a body is read.

    Raises the API's error for a wrong or missing argument, which names the member, its value and the rule. In the
    form of AWS.jl a missing member may still be in the body.
    """
    plan = plan_of(route.declaration)
    values: Values = {}
    for member, parse in plan.labels:
        values[member.attribute] = _parsed(plan, member, parse, route.labels[member.wire_name])
    given = _query(plan, request.query, values) if request.query and plan.query else False
    julia = False
    if plan.julia and not (plan.body and given):
        julia = media_type(content_type) == "application/json"
    _check(plan, plan.head_members, values, limits, partial=julia)
    return Head(route.declaration, plan.body_bytes_max(limits, julia=julia), plan, values, limits, julia)


def _query(plan: RequestPlan, query: str, values: Values) -> bool:
    """Add the operation's members in the query to `values`; returns whether there is any."""
    given = False
    for pair in query.split("&"):
        key, _, text = pair.partition("=")
        known = plan.query.get(key) or plan.query.get(_name(key))
        if known is None:
            continue
        member, parse = known
        if member.attribute in values:
            raise invalid_argument(plan.signing_name, member.name, None, "must be given once")
        try:
            text = scalar.percent_decode(text)
        except ValueError as error:
            raise invalid_argument(plan.signing_name, member.name, text, str(error)) from None
        values[member.attribute] = _parsed(plan, member, parse, text)
        given = True
    return given


def _name(key: str) -> str:
    try:
        return scalar.percent_decode(key)
    except ValueError:
        return key  # no member has this name: it is ignored


def _parsed(plan: RequestPlan, member: Member, parse: scalar.Parse | None, text: str) -> scalar.Value:
    if parse is None:
        return text
    try:
        return parse(text)
    except ValueError as error:
        raise invalid_argument(plan.signing_name, member.name, text, str(error)) from None


def _check(
    plan: RequestPlan, members: tuple[Member, ...], values: Values, limits: Limits, *, partial: bool = False
) -> None:
    api = plan.declaration.api
    for member in members:
        value = values.get(member.attribute)
        if value is not None:
            check_member(api, member, value, limits, member.name)
        elif member.required and not partial:
            raise missing_argument(plan.signing_name, member.name)


def encode(operation: Operation[Any]) -> Request:
    """Encode an operation as a request without a Host header and without a signature."""
    plan = plan_of(operation.declaration)
    query = [
        f"{name}={scalar.percent_encode(scalar.format_value(member.type, value))}"
        for name, (member, _) in plan.query.items()
        if (value := getattr(operation, member.attribute)) is not None
    ]
    headers: list[tuple[str, str]] = []
    body = Payload()
    if plan.documents:
        present = {m.name: v for m in plan.document_members if (v := getattr(operation, m.attribute)) is not None}
        body = Payload(msgspec.json.encode(present))
        headers.append(("content-type", "application/json"))
    elif plan.body:
        body = getattr(operation, plan.body.attribute) or body
        headers.append(("content-type", "application/octet-stream"))
    return Request(operation.declaration.method, _path(plan, operation), "&".join(sorted(query)), headers, body)


def _path(plan: RequestPlan, operation: Operation[Any]) -> str:
    path = plan.declaration.path
    for member, _ in plan.labels:
        value = scalar.percent_encode(str(getattr(operation, member.attribute)))
        path = path.replace(f"{{{member.wire_name}}}", value, 1)
    return path
