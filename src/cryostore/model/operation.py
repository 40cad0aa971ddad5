"""Declaration of API operations: each operation is declared once, as a typed struct.

Here are the annotations that bind a member to a part of the request or response, the declaration compiled from them,
and the registry `OPERATIONS`. Rules about values are in `rules`, encodings in `cryostore.wire`.

A declaration reads:

    @operation(Api.BACKUP_STORAGE, "PUT", "/things/{thingId}", output=PutThingOutput, errors=(...), action="...")
    class PutThing(Operation["PutThingOutput"]):
        '''One sentence: the documentation of the operation, on every page.'''
        thing_id: Annotated[str, Label("thingId"), "Which thing."]
        length: Annotated[int, Query("length"), Between(0, "chunk_bytes_max"), "Bytes in the thing."]
        data: Annotated[Payload, Body(), "The thing."] = Payload()

A member without a binding is part of the JSON document, under its API name, which is the attribute in PascalCase. A
member without a default is required. Declarations are pure data, compiled once.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from cryostore.core import time
from cryostore.core.limits import Limits
from cryostore.model.errors import ModelError, invalid_argument, missing_argument
from cryostore.model.rules import Rule

Timestamp = time.Timestamp
"""Epoch seconds, with milliseconds as the fraction."""

Out = TypeVar("Out")


class Api(Enum):
    """The two APIs served side by side; the value is the SigV4 signing name."""

    BACKUP_STORAGE = "backup-storage"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class Binding:
    """The part of a request or response that holds a member, and its name there. No name: the API name."""

    name: str = ""


class Label(Binding):
    """A segment of the path, percent-encoded."""


class Query(Binding):
    """A member of the query string."""


class Header(Binding):
    """A header of the response."""


class Document(Binding):
    """A member of the JSON document that is the body."""


class Body(Binding):
    """The raw body itself."""


@dataclass(frozen=True, slots=True)
class Sensitive:
    """Marks a member whose value must never be logged or repeated in an error."""


@dataclass(frozen=True, slots=True)
class IdempotencyToken:
    """Marks a member that SDKs set to a random token if the caller gives none."""


class Shape(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """A structure inside a JSON document; absent members are None and are not written."""


class Output(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """The output of an operation; absent members are None and are not written."""


class Nothing(Output, frozen=True):
    """The output of an operation without output members."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an input, an output or a shape, compiled from its annotation."""

    attribute: str
    name: str
    binding: Binding
    type: Any
    required: bool
    rules: tuple[Rule, ...]
    doc: str
    sensitive: bool
    idempotency_token: bool
    wire_name: str
    """The name in the part of the request or response."""
    shape: type[Shape] | None
    """The structure that this member is, or is a list of."""
    choices: tuple[str, ...]
    """The values of an enumeration; empty for any other type."""


class Operation(msgspec.Struct, Generic[Out], frozen=True, kw_only=True, rename="pascal"):
    """An operation with the arguments of one call. `call(operation)` returns its `Out`."""

    declaration: ClassVar[Declaration]


class Call(Protocol):
    """The interface that carries out operations: the service in process, or a client across a network.

    Agent and tests use it, so that they run on either.
    """

    def call(self, operation: Operation[Out]) -> Out:
        """Carry out the operation and return its output. Raises a `ModelError`. May be repeated after a failure."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """The declaration of an operation, for router, codec, client, documentation and tests."""

    name: str
    api: Api
    method: str
    path: str
    status: int
    input: type[Operation[Any]]
    output: type[Output]
    errors: tuple[type[ModelError], ...]
    action: str
    unsigned_payload: bool
    extension: bool
    doc: str

    @property
    def members(self) -> tuple[Member, ...]:
        """The input members, in declared order. Compiled on first use, since most processes use few operations."""
        return members_of(self.input)

    @property
    def output_members(self) -> tuple[Member, ...]:
        """The output members, in declared order."""
        return members_of(self.output)

    def at(self, binding: type[Binding]) -> tuple[Member, ...]:
        """The input members with this kind of binding, in declared order."""
        return tuple(member for member in self.members if isinstance(member.binding, binding))

    @property
    def body(self) -> Member | None:
        """The input member that is the raw body, if any."""
        return next(iter(self.at(Body)), None)

    def check(self, operation: Operation[Any], limits: Limits) -> None:
        """Raise the API's error for the first member that breaks a rule; it names member, value and rule."""
        for member in self.members:
            check_member(self.api, member, getattr(operation, member.attribute), limits, member.name)


OPERATIONS: dict[str, Declaration] = {}
"""Every declared operation by name, in declared order. Complete once `cryostore.model` is imported."""

Declared = TypeVar("Declared", bound=type[Operation[Any]])


def operation(
    api: Api,
    method: str,
    path: str,
    *,
    output: type[Output] = Nothing,
    errors: tuple[type[ModelError], ...],
    action: str,
    status: int = 200,
    unsigned_payload: bool = False,
    extension: bool = False,
) -> Callable[[Declared], Declared]:
    """Declare the decorated struct as an operation, and register it. `action` is its name in an access policy."""

    def declare(cls: Declared) -> Declared:
        cls.declaration = OPERATIONS[cls.__name__] = Declaration(
            name=cls.__name__,
            api=api,
            method=method,
            path=path,
            status=status,
            input=cls,
            output=output,
            errors=errors,
            action=action,
            unsigned_payload=unsigned_payload,
            extension=extension,
            doc=(cls.__doc__ or "").strip(),
        )
        return cls

    return declare


def check_member(api: Api, member: Member, value: Any, limits: Limits, where: str) -> None:
    """Check a value, and the structures in it, against the rules of its member. See `Declaration.check`."""
    if value is None:
        if member.required:
            raise missing_argument(api.value, where)
        return
    if member.choices and value not in member.choices:
        raise invalid_argument(api.value, where, value, f"must be one of {', '.join(member.choices)}")
    for rule in member.rules:
        if broken := rule.broken(value, limits):
            raise invalid_argument(api.value, where, None if member.sensitive else value, broken)
    if member.shape is not None:
        for place, item in _items(where, value):
            for inner in members_of(member.shape):
                check_member(api, inner, getattr(item, inner.attribute), limits, f"{place}.{inner.name}")


def _items(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        yield from ((f"{where}[{index}]", item) for index, item in enumerate(value))
    else:
        yield where, value


_MEMBERS: dict[type, tuple[Member, ...]] = {}


def members_of(cls: type[msgspec.Struct]) -> tuple[Member, ...]:
    """The members of an input, output or shape, in declared order."""
    if cls not in _MEMBERS:
        hints = get_type_hints(cls, include_extras=True)
        _MEMBERS[cls] = tuple(_member(field, hints[field.name]) for field in msgspec.structs.fields(cls))
    return _MEMBERS[cls]


def _member(field: msgspec.structs.FieldInfo, hint: Any) -> Member:
    kind, notes = (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    binding = next((note for note in notes if isinstance(note, Binding)), Document())
    item = get_args(kind)[0] if get_origin(kind) is list else kind
    return Member(
        attribute=field.name,
        name=field.encode_name,
        binding=binding,
        type=kind,
        required=field.required,
        rules=tuple(note for note in notes if isinstance(note, Rule)),
        doc=next((note for note in notes if isinstance(note, str)), ""),
        sensitive=any(isinstance(note, Sensitive) for note in notes),
        idempotency_token=any(isinstance(note, IdempotencyToken) for note in notes),
        wire_name=binding.name or field.encode_name,
        shape=item if isinstance(item, type) and issubclass(item, Shape) else None,
        choices=get_args(kind) if get_origin(kind) is Literal else (),
    )
