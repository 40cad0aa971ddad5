"""Routing: the operation that a method and a raw path name.

The rule of this file: a path is split at `/` first, and each segment is decoded afterwards (Backup Storage A.4), so an
object named `x/complete` never becomes another operation. A path has one reading:

1. The templates of the declarations, segment by segment; a fixed word has precedence over a variable.
2. A trailing slash is optional in AWS Backup's templates. On the Backup Storage paths it belongs to the object name.
3. A longer path under `/backup-jobs/J/object/` is an object name with raw slashes, as AWS.jl sends it (A.5): of a
   PutObject if it ends in `/put-object`, otherwise of a StartObject or DeleteObject.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryostore.model import OPERATIONS
from cryostore.model.errors import InvalidRequestException, UnknownOperationException, invalid_argument
from cryostore.model.operation import Api, Declaration
from cryostore.wire import percent
from cryostore.wire.unserved import unserved_name

OBJECT_NAME = "objectName"
"""The label that may contain raw slashes."""

BACKUP_ROOTS = frozenset(
    (
        *("account-settings", "audit", "backup", "backup-access-point", "backup-jobs", "backup-vaults", "copy-jobs"),
        *("global-settings", "indexes", "legal-holds", "logically-air-gapped-backup-vaults", "resources"),
        *("restore-access-backup-vaults", "restore-jobs", "restore-testing", "scan", "supported-resource-types"),
        *("tags", "tiering-configurations", "untag"),
    )
)
"""The first segments of all paths of AWS Backup, served or not."""


@dataclass(frozen=True, slots=True)
class Route:
    """An operation and the decoded labels of its path, by their names in the template."""

    declaration: Declaration
    labels: dict[str, str]


@dataclass(slots=True)
class _Node:
    """A node in the tree of templates: the next nodes, and by method the templates that end here."""

    words: dict[str, _Node] = field(default_factory=dict)
    variable: _Node | None = None
    ends: dict[str, _Template] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Template:
    declaration: Declaration
    segments: tuple[str, ...]
    """The segments of the template; a variable is in braces."""
    labels: tuple[tuple[int, str, str], ...]
    """Segment index, label and API name of each variable."""

    def slashed_name(self, raw: list[str]) -> list[str] | None:
        """Return the segments with a slashed object name joined into one; None if the path has another template."""
        start = self.segments.index(f"{{{OBJECT_NAME}}}")
        after = len(self.segments) - start - 1
        if len(raw) <= len(self.segments) or (after and raw[-after:] != list(self.segments[start + 1 :])):
            return None
        if any(word != given for word, given in zip(self.segments[:start], raw, strict=False) if word[0] != "{"):
            return None
        if any(is_dots(segment) for segment in raw[start:]):
            raise invalid_argument(self.declaration.api.value, "ObjectName", None, DOTS_RULE)
        return [*raw[:start], "/".join(raw[start : len(raw) - after]), *raw[len(raw) - after :]]


DOTS_RULE = "must not be '.' or '..', nor contain them between unencoded slashes"


def is_dots(segment: str) -> bool:
    """Whether signers and proxies could interpret this raw segment as `.` or `..` instead of a name."""
    return segment in (".", "..") or segment.lower() in ("%2e", ".%2e", "%2e.", "%2e%2e")


def match(method: str, path: str) -> Route:
    """Return the operation that a method and a raw path name.

    Raises the API's error for a wrong argument if a label cannot be decoded or is a dot segment,
    InvalidRequestException if AWS Backup has such a path but this server does not serve it, and otherwise
    UnknownOperationException.
    """
    raw = path.split("/")[1:]
    template = None
    if raw and raw[-1] == "":
        template = _find(method, raw[:-1])
        if template is not None and template.declaration.api is not Api.BACKUP:
            template = None
    if template is None:
        template = _find(method, raw)
    if template is not None:
        return _route(template, raw)
    for template in SLASHED.get(method, ()):
        if (joined := template.slashed_name(raw)) is not None:
            return _route(template, joined)
    if raw and raw[0] in BACKUP_ROOTS:
        name = unserved_name(method, raw[:-1] if raw[-1] == "" else raw) or "this method and path"
        raise InvalidRequestException(f"{name}: not supported by this server: {method} {path[:200]!a}")
    raise UnknownOperationException(f"no operation has this method and path: {method} {path[:200]!a}")


def _find(method: str, raw: list[str]) -> _Template | None:
    node: _Node | None = ROOT
    for segment in raw:
        assert node is not None
        node = node.words.get(segment) or node.variable
        if node is None:
            return None
    return node.ends.get(method) if node is not None else None


def _route(template: _Template, raw: list[str]) -> Route:
    labels = {}
    for index, label, name in template.labels:
        try:
            labels[label] = value = percent.decode(raw[index])
        except ValueError as error:
            raise invalid_argument(template.declaration.api.value, name, raw[index], str(error)) from None
        if value in (".", ".."):
            raise invalid_argument(template.declaration.api.value, name, value, "must not be '.' or '..'")
    return Route(template.declaration, labels)


def _compile() -> tuple[_Node, dict[str, list[_Template]]]:
    root = _Node()
    slashed: dict[str, list[_Template]] = {}
    for declaration in OPERATIONS.values():
        names = {member.wire_name: member.name for member in declaration.members}
        segments = tuple(declaration.path.strip("/").split("/"))
        labels = tuple((i, s[1:-1], names[s[1:-1]]) for i, s in enumerate(segments) if s[0] == "{")
        template = _Template(declaration, segments, labels)
        node = root
        for segment in segments:
            if segment[0] == "{":
                node.variable = node.variable or _Node()
                node = node.variable
            else:
                node = node.words.setdefault(segment, _Node())
        assert declaration.method not in node.ends, f"two operations have the path of {declaration.name}"
        node.ends[declaration.method] = template
        if f"{{{OBJECT_NAME}}}" in segments:
            slashed.setdefault(declaration.method, []).append(template)
    for templates in slashed.values():
        templates.sort(key=lambda one: -len(one.segments))  # the template of PutObject before that of StartObject
    return root, slashed


ROOT, SLASHED = _compile()
