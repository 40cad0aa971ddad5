"""`cryo points`: list recovery points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.quantities import time_text
from cryostore.core.quantities import size_text

if TYPE_CHECKING:
    from cryostore.agent.archive.recovery_points import RecoveryPoint


@click.command("points", epilog=EPILOGUE)
@click.option("--vault", default=None, help="List only this vault, instead of all.")
@click.option("--resource", default=None, metavar="NAME", help="List only this resource.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each.")
@agent_store_options
def command(vault: str | None, resource: str | None, as_json: bool, **place: Any) -> None:
    """List recovery points, newest first in each vault.

    Other commands accept the id of a recovery point, a unique beginning of it, or `latest`.
    """
    from cryostore.agent.archive.recovery_points import list_points

    point: RecoveryPoint | None = None
    with open_agent_store(AgentStore(**place)) as call:
        for point in output.while_read(list_points(call, vault, resource)):
            if as_json:
                output.say(facts(point))
            else:
                output.show(words(point))
    if point is None and not as_json:
        output.tell("no matching recovery point" if vault or resource else "no recovery point yet")


def words(point: RecoveryPoint) -> str:
    """Return a recovery point for people."""
    from cryostore.agent.archive.recovery_points import point_id

    name = point.resource_name or point.resource_arn or ""
    message = f"  ({point.status_message})" if point.status_message else ""
    size = size_text(point.backup_size_in_bytes or 0)
    return output.visible(f"{point_id(point)}  {time_text(point.creation_date)}  {size:>10}  {name}{message}")


def facts(point: RecoveryPoint) -> dict[str, Any]:
    """Return a recovery point for programs, with the names of the API."""
    import msgspec

    return dict(msgspec.to_builtins(point))
