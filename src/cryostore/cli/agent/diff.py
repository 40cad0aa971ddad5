"""`cryo diff`: list the differences between two recovery points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.exit_codes import EPILOGUE

if TYPE_CHECKING:
    from cryostore.agent.archive.diff import Difference

MARKS = {"added": "+", "removed": "-", "changed": "C", "metadata": "m"}


@click.command("diff", epilog=EPILOGUE)
@click.argument("old", metavar="POINT")
@click.argument("new", metavar="POINT")
@click.option("--vault", default=None, help="Look for the points only in this vault.")
@click.option("--resource", default=None, metavar="NAME", help="Look for the points only among those of this resource.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each difference, and a summary.")
@agent_store_options
def command(old: str, new: str, vault: str | None, resource: str | None, as_json: bool, **place: Any) -> None:
    """List the differences of the second recovery point from the first.

    `+` is added, `-` removed, `C` changed; for `m`, only mode, owner, time or attributes differ. Reads no content.
    """
    from cryostore.agent.archive.diff import Change, compare_archives
    from cryostore.agent.archive.open_archive import open_archive
    from cryostore.agent.archive.recovery_points import find_point

    counts = dict.fromkeys((change.value for change in Change), 0)
    with (
        open_agent_store(AgentStore(**place)) as call,
        open_archive(call, find_point(call, old, vault, resource), "diff") as before,
        open_archive(call, find_point(call, new, vault, resource), "diff") as after,
    ):
        for difference in output.while_read(compare_archives(before, after)):
            counts[difference.change.value] += 1
            if as_json:
                output.say(facts(difference))
            else:
                output.show(words(difference))
    if as_json:
        output.say({"type": "summary"} | counts)
    else:
        output.show(", ".join(f"{count} {change}" for change, count in counts.items()))


def words(difference: Difference) -> str:
    """Return a difference for people."""
    from cryostore.agent.errors import shown

    entry = difference.new or difference.old
    end = "/" if entry is not None and entry.row.is_directory else ""
    return f"{MARKS[difference.change.value]} {shown(difference.path)}{end}"


def facts(difference: Difference) -> dict[str, Any]:
    """Return a difference for programs, with the old and the new entry."""
    from cryostore.cli.entry_facts import entry_facts, path_facts

    found: dict[str, Any] = {"type": "difference", "change": difference.change.value} | path_facts(difference.path)
    for name, entry in (("old", difference.old), ("new", difference.new)):
        if entry is not None:
            found[name] = entry_facts(entry)
    return found
