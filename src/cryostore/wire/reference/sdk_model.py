"""The SDK model: our declarations as a botocore data folder, which adds `backupstorage` to boto3 and the aws CLI.

A caller writes the files to a folder and names it in AWS_DATA_PATH; the address of the server goes into
`--endpoint-url`, AWS_ENDPOINT_URL or a profile. The control plane needs no such folder: every SDK knows `backup`.
"""

from __future__ import annotations

import html
from typing import Any, get_args, get_origin

import msgspec

from cryostore.core.limits import Limits
from cryostore.model import OPERATIONS
from cryostore.model.errors import ModelError
from cryostore.model.operation import (
    Api,
    Binding,
    Body,
    Declaration,
    Document,
    Header,
    Label,
    Member,
    Nothing,
    Query,
    Timestamp,
    members_of,
)
from cryostore.wire import error

FOLDER = "backupstorage/2018-04-10"
LIMITS = Limits()
NO_ENDPOINT = "Backup Storage is self-hosted: name its address with --endpoint-url, endpoint_url or AWS_ENDPOINT_URL"

LOCATIONS: dict[type[Binding], str] = {
    Label: "uri",
    Query: "querystring",
    Header: "header",
    Document: "",
    Body: "payload",
}
"""The location of each binding in a service model; a member without one travels in the document."""

Json = dict[str, Any]


def render(*, extensions: bool = True) -> dict[str, bytes]:
    """Return the files by their path in the data folder. Without `extensions`, only the nine operations of AWS."""
    declared = [one for one in OPERATIONS.values() if one.api is Api.BACKUP_STORAGE]
    declared = sorted((one for one in declared if extensions or not one.extension), key=lambda one: one.name)
    files = {
        "service-2.json": _service(declared),
        "paginators-1.json": _paginators(declared),
        "endpoint-rule-set-1.json": _endpoints(),
    }
    return {f"{FOLDER}/{name}": msgspec.json.format(msgspec.json.encode(file)) for name, file in files.items()}


def _service(declared: list[Declaration]) -> Json:
    shapes = _Shapes()
    operations = {declaration.name: _operation(declaration, shapes) for declaration in declared}
    metadata = {
        "apiVersion": "2018-04-10",
        "endpointPrefix": "backupstorage",
        "jsonVersion": "1.1",
        "protocol": "rest-json",
        "protocols": ["rest-json"],
        "serviceFullName": "AWS Backup Storage",
        "serviceId": "BackupStorage",
        "signatureVersion": "v4",
        "signingName": Api.BACKUP_STORAGE.value,
        "uid": "backupstorage-2018-04-10",
    }
    return {
        "version": "2.0",
        "metadata": metadata,
        "operations": operations,
        "shapes": dict(sorted(shapes.defined.items())),
        "documentation": "<p>The frontend service for Cryostore's backup storage.</p>",
    }


def _operation(declaration: Declaration, shapes: _Shapes) -> Json:
    rendered: Json = {
        "name": declaration.name,
        "http": {
            "method": declaration.method,
            "requestUri": declaration.path,
            "responseCode": declaration.status,
        },
        "input": {"shape": shapes.structure(f"{declaration.name}Input", declaration.members, declaration.doc)},
        "errors": [{"shape": shapes.error(kind)} for kind in declaration.errors],
        "documentation": _html(declaration.doc),
    }
    if declaration.output is not Nothing:
        output = declaration.output
        shape = shapes.structure(f"{declaration.name}Output", declaration.output_members, output.__doc__ or "")
        rendered["output"] = {"shape": shape}
    if declaration.unsigned_payload:
        rendered["authtype"] = "v4-unsigned-body"
        rendered["unsignedPayload"] = True
    return rendered


class _Shapes:
    """The shapes of a service file, defined when first needed."""

    def __init__(self) -> None:
        self.defined: dict[str, Json] = {}

    def structure(self, name: str, members: tuple[Member, ...], doc: str) -> str:
        """Define a structure; returns its name."""
        rendered: Json = {"type": "structure", "members": {m.name: self._reference(name, m) for m in members}}
        if required := [member.name for member in members if member.required]:
            rendered["required"] = required
        if payload := [member.name for member in members if LOCATIONS[type(member.binding)] == "payload"]:
            rendered["payload"] = payload[0]
        if doc:
            rendered["documentation"] = _html(doc)
        return self._define(name, rendered)

    def error(self, kind: type[ModelError]) -> str:
        """Define an error; returns its name."""
        members: Json = {name: {"shape": self._scalar("string")} for name in ("Message", *error.member_names(kind))}
        rendered: Json = {"type": "structure", "members": members, "error": {"httpStatusCode": kind.status}}
        rendered |= {"exception": True, "documentation": _html(kind.__doc__)}
        if kind.status >= 500:
            rendered["fault"] = True
        return self._define(kind.__name__, rendered)

    def _reference(self, owner: str, member: Member) -> Json:
        rendered: Json = {"shape": self._shape(owner, member)}
        if member.doc:
            rendered["documentation"] = _html(member.doc)
        location = LOCATIONS[type(member.binding)]
        if location not in ("", "payload"):
            rendered |= {"location": location, "locationName": member.wire_name}
        if member.idempotency_token:
            rendered["idempotencyToken"] = True
        return rendered

    def _shape(self, owner: str, member: Member) -> str:
        container: Any = get_origin(member.type)
        if container is list:
            item = self._item(member)
            return self._named(owner, member, {"type": "list", "member": {"shape": item}, **_bounds(member)})
        if container is dict:
            text = {"shape": self._scalar("string")}
            return self._named(owner, member, {"type": "map", "key": text, "value": text, **_bounds(member)})
        if member.shape is not None:
            return self.structure(member.shape.__name__, members_of(member.shape), member.shape.__doc__ or "")
        if member.choices:
            return self._named(owner, member, {"type": "string", "enum": list(member.choices)})
        if LOCATIONS[type(member.binding)] == "payload":
            return self._define("PayloadBlob", {"type": "blob", "streaming": True})
        kind = {int: "long", bool: "boolean", Timestamp: "timestamp"}.get(member.type, "string")
        traits = _bounds(member)
        return self._named(owner, member, {"type": kind, **traits}) if traits else self._scalar(kind)

    def _item(self, member: Member) -> str:
        if member.shape is not None:
            return self.structure(member.shape.__name__, members_of(member.shape), member.shape.__doc__ or "")
        return self._scalar("long" if get_args(member.type)[0] is int else "string")

    def _scalar(self, kind: str) -> str:
        return self._define(kind, {"type": kind})

    def _named(self, owner: str, member: Member, shape: Json) -> str:
        """Define a shape with the member's name, prefixed with the owner's if another shape has that name."""
        if member.sensitive:
            shape["sensitive"] = True
        taken = self.defined.get(member.name, shape) != shape
        return self._define(f"{owner}{member.name}" if taken else member.name, shape)

    def _define(self, name: str, shape: Json) -> str:
        assert self.defined.setdefault(name, shape) == shape, f"two shapes are called {name}"
        return name


def _bounds(member: Member) -> Json:
    """Return the member's rules in botocore's names. botocore checks the lower bounds before it sends."""
    schema = {key: value for rule in member.rules for key, value in rule.schema(LIMITS).items()}
    names = {"minimum": "min", "minLength": "min", "maximum": "max", "maxLength": "max", "pattern": "pattern"}
    return {name: schema[key] for key, name in names.items() if key in schema}


def _html(doc: str | None) -> str:
    return f"<p>{html.escape(doc or '', quote=False)}</p>"


def _paginators(declared: list[Declaration]) -> Json:
    pages: Json = {}
    for declaration in declared:
        names = {member.name for member in declaration.members}
        lists = [member.name for member in declaration.output_members if get_origin(member.type) is list]
        if "NextToken" in names and len(lists) == 1:
            pages[declaration.name] = {
                "input_token": "NextToken",
                "output_token": "NextToken",
                "limit_key": "MaxResults",
                "result_key": lists[0],
            }
    return {"pagination": pages}


def _endpoints() -> Json:
    """Return endpoint rules that accept only an address that the caller gives."""

    def text(doc: str, built_in: str) -> Json:
        return {"builtIn": built_in, "required": False, "documentation": doc, "type": "String"}

    given = {"fn": "isSet", "argv": [{"ref": "Endpoint"}]}
    endpoint = {"url": {"ref": "Endpoint"}, "properties": {}, "headers": {}}
    return {
        "version": "1.0",
        "parameters": {
            "Region": text("The region in the credential scope.", "AWS::Region"),
            "Endpoint": text("The address of the server.", "SDK::Endpoint"),
        },
        "rules": [
            {"conditions": [given], "endpoint": endpoint, "type": "endpoint"},
            {"conditions": [], "error": NO_ENDPOINT, "type": "error"},
        ],
    }
