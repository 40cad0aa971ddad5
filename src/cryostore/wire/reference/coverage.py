"""The page of served operations, `docs/reference/api-coverage.md`, generated from the declarations."""

from __future__ import annotations

from collections.abc import Iterator

from cryostore.model import OPERATIONS
from cryostore.model.operation import Api, Declaration, Document, Member, Query

TITLES = {
    Api.BACKUP_STORAGE: "Backup Storage (`backup-storage`, version 2018-04-10)",
    Api.BACKUP: "AWS Backup (`backup`, version 2018-11-15)",
}
INTRODUCTION = """\
# API coverage

`make docs` writes this page from the declarations in `src/cryostore/model`. The server serves
exactly the operations listed here.

- An **extension** is an operation that AWS runs inside its own service and never published.
  `cryo sdk-model` makes it known to boto3 and the aws CLI.
- **Status** is the HTTP status of success, **action** the name that a policy uses. An asterisk
  marks required members.
- A trailing slash is optional on the paths of AWS Backup.
- A path of AWS Backup that is not listed answers InvalidRequestException (400, "not supported by
  this server"), any other path UnknownOperationException (404).
"""


def render() -> str:
    """Return the page."""
    return "\n".join([INTRODUCTION, *(line for api in Api for line in _section(api))])


def _section(api: Api) -> Iterator[str]:
    declared = [one for one in OPERATIONS.values() if one.api is api]
    extensions = sum(one.extension for one in declared)
    count = f"{len(declared) - extensions} operations" + (f" and {extensions} extensions" if extensions else "")
    yield f"## {TITLES[api]}"
    yield ""
    yield f"{count}."
    yield ""
    yield "| operation | method and path | input beside the path | status | action |"
    yield "|---|---|---|---|---|"
    for declaration in sorted(declared, key=lambda one: (one.extension, one.name)):
        yield _row(declaration)
    yield ""


def _row(declaration: Declaration) -> str:
    name = f"{declaration.name} (extension)" if declaration.extension else declaration.name
    cells = [
        f"**{name}**<br>{declaration.doc.splitlines()[0]}",
        f"`{declaration.method} {declaration.path}`",
        _input(declaration),
        str(declaration.status),
        f"`{declaration.action}`",
    ]
    return f"| {' | '.join(cells)} |"


def _input(declaration: Declaration) -> str:
    parts = []
    if query := _names(declaration.at(Query)):
        parts.append(f"query: {', '.join(query)}")
    if declaration.body:
        parts.append(f"raw body: {declaration.body.name}")
    if document := _names(declaration.at(Document)):
        parts.append(f"JSON: {', '.join(document)}")
    return "<br>".join(parts)


def _names(members: tuple[Member, ...]) -> list[str]:
    return [f"{member.wire_name}{'*' if member.required else ''}" for member in members]
