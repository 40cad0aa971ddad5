"""The OpenAPI 3.1 document of all served operations, generated from the declarations."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from cryostore import __version__
from cryostore.core.digest import Payload
from cryostore.core.limits import Limits
from cryostore.model import OPERATIONS
from cryostore.model.errors import ERRORS, ModelError, SignatureError
from cryostore.model.operation import (
    Api,
    Body,
    Declaration,
    Document,
    Header,
    Label,
    Member,
    Query,
    Shape,
    Timestamp,
    members_of,
)
from cryostore.wire import error, scalar

Json = dict[str, Any]

TAGS = {Api.BACKUP_STORAGE: "Backup Storage", Api.BACKUP: "AWS Backup"}
DESCRIPTION = """\
Two APIs side by side: Backup Storage (signing name `backup-storage`), the data plane of AWS Backup, and AWS Backup
itself (signing name `backup`). Labels in a path are percent-encoded, slashes included. Timestamps are epoch seconds in
documents, ISO 8601 or epoch seconds in queries."""
SIGNATURE = {
    "type": "apiKey",
    "in": "header",
    "name": "Authorization",
    "description": "AWS Signature Version 4, in this header or in the query (presigned).",
}


def render(limits: Limits | None = None) -> Json:
    """Return the document, with the bounds of `limits`."""
    schemas = _Schemas(limits or Limits())
    paths: dict[str, Json] = {}
    for declaration in OPERATIONS.values():
        paths.setdefault(declaration.path, {})[declaration.method.lower()] = _operation(declaration, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cryostore", "version": __version__, "description": DESCRIPTION},
        "tags": [{"name": name} for name in TAGS.values()],
        "security": [{"signature": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"signature": SIGNATURE},
            "responses": {"Error": ANY_ERROR},
            "schemas": dict(sorted(schemas.defined.items())),
        },
    }


def _operation(declaration: Declaration, schemas: _Schemas) -> Json:
    rendered: Json = {
        "operationId": declaration.name,
        "tags": [TAGS[declaration.api]],
        "summary": declaration.doc.splitlines()[0],
        "x-action": declaration.action,
        "x-extension": declaration.extension,
        "parameters": [_parameter(member, schemas) for member in declaration.at(Label) + declaration.at(Query)],
        "responses": {
            str(declaration.status): _answer(declaration, schemas),
            **_errors(declaration, schemas),
            "default": {"$ref": "#/components/responses/Error"},
        },
    }
    if declaration.body:
        content = {"application/octet-stream": {"schema": schemas.member(declaration.body)}}
        rendered["requestBody"] = {"content": content, "required": declaration.body.required}
    elif document := declaration.at(Document):
        content = {"application/json": {"schema": schemas.structure(document)}}
        rendered["requestBody"] = {"content": content, "required": any(member.required for member in document)}
    return rendered


def _parameter(member: Member, schemas: _Schemas) -> Json:
    return {
        "name": member.wire_name,
        "in": "path" if isinstance(member.binding, Label) else "query",
        "required": member.required,
        "description": member.doc,
        "schema": schemas.member(member),
    }


def _answer(declaration: Declaration, schemas: _Schemas) -> Json:
    members = declaration.output_members
    headers = {member.wire_name: member for member in members if isinstance(member.binding, Header)}
    rendered: Json = {"description": (declaration.output.__doc__ or "").splitlines()[0]}
    if headers:
        rendered["headers"] = {
            name: {"required": member.required, "description": member.doc, "schema": schemas.member(member)}
            for name, member in headers.items()
        }
    if any(isinstance(member.binding, Body) for member in members):
        rendered["content"] = {"application/octet-stream": {"schema": {}}}
    else:
        rendered["content"] = {"application/json": {"schema": schemas.structure(members)}}
    return rendered


SIGNATURE_ERRORS = [kind for kind in ERRORS.values() if issubclass(kind, SignatureError) and kind is not SignatureError]
"""Errors of every operation, declared or not, under a status that declarations use as well."""


def _errors(declaration: Declaration, schemas: _Schemas) -> Json:
    by_status: dict[str, list[type[ModelError]]] = {}
    for kind in dict.fromkeys((*declaration.errors, *SIGNATURE_ERRORS)):
        status = kind.status_control if declaration.api is Api.BACKUP and kind.status_control else kind.status
        by_status.setdefault(str(status), []).append(kind)
    return {
        status: {
            "description": ", ".join(kind.__name__ for kind in kinds),
            "content": {"application/json": {"schema": _any_of([schemas.error(kind) for kind in kinds])}},
        }
        for status, kinds in sorted(by_status.items())
    }


def _any_of(schemas: list[Json]) -> Json:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


ANY_ERROR = {
    "description": "Any other error; named in x-amzn-ErrorType and in the body.",
    "content": {"application/json": {"schema": {"type": "object", "required": ["Code", "Message"]}}},
}


class _Schemas:
    """The named schemas, defined when first needed."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.defined: dict[str, Json] = {}

    def structure(self, members: tuple[Member, ...]) -> Json:
        """Return the schema of an object with these members."""
        rendered: Json = {"type": "object", "properties": {member.name: self.member(member) for member in members}}
        if required := [member.name for member in members if member.required]:
            rendered["required"] = required
        return rendered

    def error(self, kind: type[ModelError]) -> Json:
        """Return a reference to the schema of an error."""
        texts = ("__type", "Code", "Message", "message", *error.member_names(kind))
        self.defined[kind.__name__] = {
            "type": "object",
            "description": (kind.__doc__ or "").splitlines()[0],
            "properties": {name: {"type": "string"} for name in texts}
            | {name: {"const": kind.__name__} for name in ("__type", "Code")},
            "required": ["__type", "Code", "Message", "message"],
        }
        return {"$ref": f"#/components/schemas/{kind.__name__}"}

    def member(self, member: Member) -> Json:
        """Return the schema of a member with its rules."""
        rendered = self._type(member)
        for rule in member.rules:
            rendered |= _counted(rendered.get("type"), rule.schema(self.limits))
        if member.doc and isinstance(member.binding, Document):
            rendered["description"] = member.doc
        return rendered

    def _type(self, member: Member) -> Json:
        container: Any = get_origin(member.type)
        if member.choices:
            return {"type": "string", "enum": list(member.choices)}
        if container is list:
            kind = get_args(member.type)[0]
            return {"type": "array", "items": self._shape(member.shape) if member.shape else _scalar(kind)}
        if container is dict:
            return {"type": "object", "additionalProperties": {"type": "string"}}
        return self._shape(member.shape) if member.shape else _scalar(member.type, member)

    def _shape(self, shape: type[Shape]) -> Json:
        if shape.__name__ not in self.defined:
            members = self.structure(members_of(shape))
            self.defined[shape.__name__] = members | {"description": (shape.__doc__ or "").splitlines()[0]}
        return {"$ref": f"#/components/schemas/{shape.__name__}"}


def _scalar(kind: scalar.DeclaredType, member: Member | None = None) -> Json:
    if kind is Timestamp:
        in_query = member is not None and isinstance(member.binding, Query)
        return {"type": "string", "format": "date-time"} if in_query else {"type": "number", "format": "epoch-seconds"}
    if kind is Payload:
        return {}
    return {int: {"type": "integer", "format": "int64"}, bool: {"type": "boolean"}}.get(kind, {"type": "string"})


def _counted(kind: object, schema: Json) -> Json:
    """Rename length bounds: JSON Schema has other names for those of lists and maps than for those of texts."""
    unit = {"array": "Items", "object": "Properties", "string": "Length"}.get(str(kind), "")
    counted = {f"{key[:3]}{unit}": value for key, value in schema.items() if key.endswith("Length") and unit}
    return counted | {key: value for key, value in schema.items() if not key.endswith("Length")}
