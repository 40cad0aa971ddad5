"""Hypothesis strategies for operations and outputs, derived from their declarations."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, get_args, get_origin

from hypothesis import strategies as st

from cryostore.core.digest import Payload
from cryostore.core.limits import Limits
from cryostore.model import OPERATIONS, Declaration
from cryostore.model.operation import Body, Header, Label, Member, Timestamp, members_of
from cryostore.model.rules import INTEGER_MAX, Between, ChecksumText, Length, Pattern, Printable

LIMITS = Limits()
TEXT_CHARACTERS_MAX = 40

digests = st.binary(max_size=8).map(lambda data: hashlib.sha256(data).digest())
checksums = digests.map(bytes.hex) | digests.map(lambda digest: base64.b64encode(digest).decode())
timestamps = st.integers(0, 4_102_444_800_000).map(lambda milliseconds: milliseconds / 1000)
characters = st.characters(exclude_categories=["Cs"])
printable = st.characters(exclude_categories=["Cs", "Cc"])


def operations(*names: str) -> st.SearchStrategy[Any]:
    """Any valid operation, or any of the named ones."""
    declared = [OPERATIONS[name] for name in names] if names else list(OPERATIONS.values())
    return st.sampled_from(declared).flatmap(operation)


def operation(declaration: Declaration) -> st.SearchStrategy[Any]:
    """Any valid call of one operation."""
    return _structure(declaration.input)


def outputs(declaration: Declaration) -> st.SearchStrategy[Any]:
    """Any output of one operation."""
    return _structure(declaration.output)


def arguments(declaration: Declaration) -> st.SearchStrategy[dict[str, Any]]:
    """Any valid arguments of one operation by API name, absent ones left out."""
    return _members(declaration.input).map(
        lambda found: {
            member.name: found[member.attribute]
            for member in declaration.members
            if found.get(member.attribute) is not None
        }
    )


def _structure(cls: type) -> st.SearchStrategy[Any]:
    return _members(cls).map(lambda found: cls(**found))


def _members(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    members = members_of(cls)
    required = {member.attribute: value(member) for member in members if member.required}
    optional = {member.attribute: value(member) for member in members if not member.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda found: _without_ghosts(members, found))


def _without_ghosts(members: tuple[Member, ...], found: dict[str, Any]) -> dict[str, Any]:
    """Remove the length of an absent body, which would be an empty body on the wire."""
    bodies = [member.attribute for member in members if isinstance(member.binding, Body)]
    ghosts = {f"{attribute}_length" for attribute in bodies if attribute not in found}
    return {attribute: value for attribute, value in found.items() if attribute not in ghosts}


def value(member: Member) -> st.SearchStrategy[Any]:
    """Any valid value of a member."""
    rules = {type(rule): rule for rule in member.rules}
    if member.choices or ChecksumText in rules:
        return st.sampled_from(member.choices) if member.choices else checksums
    if member.type is int:
        between = rules.get(Between, Between(0, INTEGER_MAX))
        return st.integers(_bound(between.low), _bound(between.high))
    if member.shape is not None or member.type in (bool, Timestamp, Payload):
        return _typed(member)
    if get_origin(member.type) is dict:
        return st.dictionaries(_text(1, 20, characters), _text(0, 20, characters), max_size=3)
    if get_origin(member.type) is list:
        return st.lists(st.integers() if get_args(member.type)[0] is int else _text(0, 20, characters), max_size=3)
    return _limited_text(member, rules)


def _typed(member: Member) -> st.SearchStrategy[Any]:
    if member.shape is not None:
        item = _structure(member.shape)
        return st.lists(item, min_size=1, max_size=3) if get_origin(member.type) is list else item
    if member.type is Payload:
        # An empty optional body is the same as an absent one.
        return st.binary(min_size=0 if member.required else 1, max_size=200).map(Payload)
    return st.booleans() if member.type is bool else timestamps


def _limited_text(member: Member, rules: dict[type, Any]) -> st.SearchStrategy[str]:
    length = rules.get(Length, Length(0, TEXT_CHARACTERS_MAX))
    high = min(_bound(length.high), TEXT_CHARACTERS_MAX)
    if Pattern in rules:
        return st.from_regex(
            re.compile(rules[Pattern].expression, re.ASCII), fullmatch=True, alphabet=characters
        ).filter(lambda text: not any(rule.broken(text, LIMITS) for rule in member.rules))
    # A member in a header, or with this rule, accepts no control characters; a label cannot be a dot segment.
    plain = Printable in rules or isinstance(member.binding, (Header, Body))
    found = _text(_bound(length.low), high, printable if plain else characters)
    return found.filter(lambda text: text not in (".", "..")) if isinstance(member.binding, Label) else found


def _text(low: int, high: int, alphabet: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=low, max_size=max(low, high // 2)).filter(
        lambda text: low <= len(text.encode()) <= high
    )


def _bound(bound: int | str) -> int:
    return bound if isinstance(bound, int) else int(getattr(LIMITS, bound))
