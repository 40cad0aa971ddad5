"""`cryo ls`: list the entries of a recovery point."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.quantities import time_text

if TYPE_CHECKING:
    from cryostore.agent.archive.listing import ArchiveEntry


@click.command("ls", epilog=EPILOGUE)
@click.argument("point", metavar="POINT[:PATH]")
@click.option("--vault", default=None, help="Look for POINT only in this vault.")
@click.option("--resource", default=None, metavar="NAME", help="Look for POINT only among those of this resource.")
@click.option("-l", "--long", is_flag=True, help="Show mode, owner, size and time.")
@click.option("-R", "--recursive", is_flag=True, help="List folders recursively.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each entry.")
@agent_store_options
def command(
    point: str, vault: str | None, resource: str | None, long: bool, recursive: bool, as_json: bool, **place: Any
) -> None:
    """List the entries at PATH in a recovery point.

    Unprintable characters in names are escaped, so that they cannot control the terminal.
    """
    from cryostore.agent.archive.listing import ArchiveTree, archive_path
    from cryostore.agent.archive.open_archive import open_archive
    from cryostore.agent.archive.recovery_points import find_point, split_point

    name, path = split_point(point)
    with (
        open_agent_store(AgentStore(**place)) as call,
        open_archive(call, find_point(call, name, vault, resource), "list") as archive,
    ):
        for entry in output.while_read(ArchiveTree(archive).entries(archive_path(archive, path), recursive=recursive)):
            if as_json:
                output.say(facts(entry))
            else:
                output.show(words(entry, long=long))


def words(entry: ArchiveEntry, *, long: bool) -> str:
    """Return an entry for people."""
    from cryostore.agent.errors import shown

    target = _target(entry)
    name = shown(entry.path) + (f" -> {shown(target)}" if target is not None and long else "")
    if entry.row.is_directory:
        name += "/"
    if not long:
        return name
    row = entry.row
    moment = time_text(row.mtime_ns // 1_000_000_000)
    return f"{stat.filemode(row.mode)} {row.uid:>5} {row.gid:>5} {row.size:>12} {moment} {name}"


def facts(entry: ArchiveEntry) -> dict[str, Any]:
    """Return an entry for programs. Invalid UTF-8 in its path becomes lone surrogates, as in Python."""
    row = entry.row
    target = _target(entry)
    found: dict[str, Any] = {
        "path": os.fsdecode(entry.path),
        "mode": stat.filemode(row.mode),
        "uid": row.uid,
        "gid": row.gid,
        "size": row.size,
        "mtime_ns": row.mtime_ns,
        "inode": row.inode,
        "links": row.links,
    }
    return found if target is None else found | {"target": os.fsdecode(target)}


def _target(entry: ArchiveEntry) -> bytes | None:
    from cryostore.agent.block import ExtraKind

    return next((extra.data for extra in entry.extras if extra.kind == ExtraKind.LINK_TARGET), None)
