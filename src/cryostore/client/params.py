"""Arguments and results of the nine functions, translated by the declarations of the operations.

Builds an operation from arguments and `params`, and a dict from an output. The server checks the rules for values; this
module only requires a type that can be sent.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, SupportsFloat, SupportsIndex, TypeVar

import msgspec

from cryostore.core.digest import Payload
from cryostore.core.time import parse_timestamp
from cryostore.model.errors import IllegalArgumentException
from cryostore.model.operation import Declaration, Member, Operation, Output, Timestamp, members_of

Out = TypeVar("Out", bound=Output)


def build(
    operation: type[Operation[Out]], arguments: Mapping[str, object], params: Mapping[str, Any] | None
) -> Operation[Out]:
    """Return the operation for the arguments of a function, by parameter name, and its `params`, by wire name.

    Raises IllegalArgumentException, which names the argument and the legal values, for an unknown key, a value of the
    wrong type, or `params` that are not a mapping. None in `params` means absent.
    """
    required, optional = _members(operation.declaration)
    values = {name: _value(required[name], name, value) for name, value in arguments.items()}
    if params is not None and not isinstance(params, Mapping):
        raise IllegalArgumentException(f"params must be a mapping, not {type(params).__name__}")
    for key, value in (params or {}).items():
        if key not in optional:
            legal = ", ".join(optional) or "none"
            raise IllegalArgumentException(f"params has no key {key!r} in {operation.__name__}; legal keys: {legal}")
        if value is not None:
            values[key] = _value(optional[key], key, value)
    members = required | optional
    return operation(**{members[name].attribute: value for name, value in values.items()})


def as_dict(output: Output) -> dict[str, Any]:
    """Return the members that are present, by their API names; blobs as bytes, structures as dicts."""
    values = ((member.name, getattr(output, member.attribute)) for member in members_of(type(output)))
    return {name: _builtin(value) for name, value in values if value is not None}


def parameter_name(wire_name: str) -> str:
    """Return a name such as `checksum-algorithm` or `jobId` in Python's style."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", wire_name).replace("-", "_").lower()


@functools.cache
def _members(declaration: Declaration) -> tuple[dict[str, Member], dict[str, Member]]:
    """Return the required members by parameter name, and the optional ones by key of `params`."""
    required = {parameter_name(member.wire_name): member for member in declaration.members if member.required}
    optional = {member.wire_name: member for member in declaration.members if not member.required}
    return required, optional


def _value(member: Member, name: str, value: object) -> object:
    kind = str if member.choices else member.type
    expected, convert = CONVERSIONS[kind]
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError):
        # Does not show the value: it may be data.
        raise IllegalArgumentException(f"{name} must be {expected}, not {type(value).__name__}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # a lone surrogate cannot be sent
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError
    return operator.index(value)


def _payload(value: object) -> Payload:
    if isinstance(value, bytes | bytearray):
        return Payload(value)
    view = memoryview(value)  # type: ignore[arg-type] # raises TypeError for anything else
    return Payload(view.cast("B") if view.c_contiguous else view.tobytes())


def _timestamp(value: object) -> Timestamp:
    if isinstance(value, datetime):
        return Timestamp((value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, str):
        return Timestamp(parse_timestamp(value))
    if isinstance(value, bool) or not isinstance(value, SupportsFloat):
        raise TypeError
    seconds = float(value)
    datetime.fromtimestamp(seconds, UTC)  # raises for a moment that cannot be represented
    return Timestamp(seconds)


CONVERSIONS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    str: ("a text of valid Unicode", _text),
    bool: ("True or False", _truth),
    int: ("an integer", _integer),
    Payload: ("bytes or bytes-like", _payload),
    Timestamp: ("a datetime, an ISO 8601 text or epoch seconds", _timestamp),
}


def _builtin(value: object) -> object:
    if isinstance(value, Payload):
        return value.data if isinstance(value.data, bytes) else bytes(value.data)
    return msgspec.to_builtins(value)
