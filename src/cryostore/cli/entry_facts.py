"""Entries of a recovery point in results: as JSON whatever bytes are in their names, and with their issues."""

from __future__ import annotations

import base64
import os
import stat
from typing import TYPE_CHECKING, Any

from cryostore.cli import output

if TYPE_CHECKING:
    from cryostore.agent.archive.listing import ArchiveEntry
    from cryostore.agent.report import Report


def path_facts(path: bytes) -> dict[str, str]:
    """Return a path as `path`: text in which each byte that is not UTF-8 is a lone surrogate, as in Python.

    A path with such bytes is also in `path_base64`, because not every JSON parser accepts lone surrogates.
    """
    found = {"path": os.fsdecode(path)}
    try:
        path.decode()
    except UnicodeDecodeError:
        found["path_base64"] = base64.b64encode(path).decode()
    return found


def entry_facts(entry: ArchiveEntry) -> dict[str, Any]:
    """Return the mode, owner, size and time of an entry."""
    row = entry.row
    return {
        "mode": stat.filemode(row.mode),
        "uid": row.uid,
        "gid": row.gid,
        "size": row.size,
        "mtime_ns": row.mtime_ns,
    }


def say_issues(report: Report, *, as_json: bool) -> None:
    """Print each issue on a line of its own: to stderr for people, among the results for programs."""
    from cryostore.agent.errors import shown as shown_path

    for issue in report.issues:
        if as_json:
            output.say({"type": "issue"} | path_facts(issue.path) | {"reason": issue.reason})
        else:
            output.tell(f"{shown_path(issue.path) or '.'}: {issue.reason}")
    if not as_json and (more := report.issue_count - len(report.issues)):
        output.tell(f"and {more} more")
