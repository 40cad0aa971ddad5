"""Rules about the values of members: bounds, lengths, patterns, names.

Each rule is data, with its check and its JSON Schema. A bound is a number or the name of a limit, so that every number
that an operator may lower is in one place (`cryostore.core.limits`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from cryostore.core.digest import Checksum
from cryostore.core.limits import Limits

INTEGER_MAX = 2**63 - 1


class Rule:
    """A rule about one value."""

    def broken(self, value: Any, limits: Limits) -> str | None:
        """The text of the rule if `value` breaks it; None otherwise."""
        raise NotImplementedError

    def schema(self, limits: Limits) -> dict[str, Any]:
        """The rule as JSON Schema, as far as JSON Schema can express it."""
        raise NotImplementedError


def _bound(bound: int | str, limits: Limits) -> int:
    return bound if isinstance(bound, int) else int(getattr(limits, bound))


@dataclass(frozen=True, slots=True)
class Between(Rule):
    """An integer within bounds, both included."""

    low: int | str
    high: int | str

    def broken(self, value: int, limits: Limits) -> str | None:
        low, high = _bound(self.low, limits), _bound(self.high, limits)
        return None if low <= value <= high else f"must be between {low} and {high}"

    def schema(self, limits: Limits) -> dict[str, Any]:
        return {"minimum": _bound(self.low, limits), "maximum": _bound(self.high, limits)}


@dataclass(frozen=True, slots=True)
class Length(Rule):
    """A length within bounds: bytes of UTF-8 for a text, bytes for a payload, items for a list or map."""

    low: int | str
    high: int | str

    def broken(self, value: Any, limits: Limits) -> str | None:
        low, high = _bound(self.low, limits), _bound(self.high, limits)
        try:
            length = len(value.encode()) if isinstance(value, str) else len(value)
        except UnicodeEncodeError:
            return "must be valid UTF-8"
        unit = "items" if isinstance(value, (list, dict)) else "bytes"
        return None if low <= length <= high else f"must be {low} to {high} {unit} long"

    def schema(self, limits: Limits) -> dict[str, Any]:
        # JSON Schema counts characters, each of at least one byte, so only the upper bound holds there, too.
        return {"minLength": min(1, _bound(self.low, limits)), "maxLength": _bound(self.high, limits)}


@dataclass(frozen=True, slots=True)
class Pattern(Rule):
    """A text that matches a regular expression as a whole."""

    expression: str

    def broken(self, value: str, limits: Limits) -> str | None:  # noqa: ARG002 - the interface of all rules
        return None if re.fullmatch(self.expression, value, re.ASCII) else f"must match {self.expression}"

    def schema(self, limits: Limits) -> dict[str, Any]:  # noqa: ARG002 - the interface of all rules
        return {"pattern": f"^{self.expression}$"}


@dataclass(frozen=True, slots=True)
class ChecksumText(Rule):
    """A SHA-256 digest as text (B.3)."""

    def broken(self, value: str, limits: Limits) -> str | None:  # noqa: ARG002 - the interface of all rules
        try:
            Checksum.parse(value)
        except ValueError as error:
            return str(error)
        return None

    def schema(self, limits: Limits) -> dict[str, Any]:  # noqa: ARG002 - the interface of all rules
        return {"pattern": "^([0-9a-fA-F]{64}|[A-Za-z0-9+/]{43}=)$"}


@dataclass(frozen=True, slots=True)
class Printable(Rule):
    """A text without control characters, valid as UTF-8, so that it is safe in a header and in a log line."""

    def broken(self, value: str, limits: Limits) -> str | None:  # noqa: ARG002 - the interface of all rules
        if value.isprintable():  # fast path for nearly every text
            return None
        if any(unicodedata.category(character) == "Cs" for character in value):
            return "must be valid UTF-8"
        control = any(unicodedata.category(character) == "Cc" for character in value)
        return "must not contain control characters" if control else None

    def schema(self, limits: Limits) -> dict[str, Any]:  # noqa: ARG002 - the interface of all rules
        return {}


@dataclass(frozen=True, slots=True)
class NotDots(Rule):
    """A name that is not `.` or `..`: signers and proxies remove those from a path (A.4)."""

    def broken(self, value: str, limits: Limits) -> str | None:  # noqa: ARG002 - the interface of all rules
        return "must not be '.' or '..'" if value in (".", "..") else None

    def schema(self, limits: Limits) -> dict[str, Any]:  # noqa: ARG002 - the interface of all rules
        return {"not": {"enum": [".", ".."]}}
