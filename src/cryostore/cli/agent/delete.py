"""`cryo delete`: delete recovery points."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cryostore.agent.archive.recovery_points import RecoveryPoint
    from cryostore.model.operation import Call


@click.command("delete", epilog=EPILOGUE)
@click.argument("points", metavar="POINT...", nargs=-1, required=True)
@click.option("--vault", default=None, help="Look for POINT only in this vault.")
@click.option("--resource", default=None, metavar="NAME", help="Look for POINT only among those of this resource.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="Delete nothing; only list the recovery points.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each.")
@agent_store_options
def command(
    points: tuple[str, ...],
    vault: str | None,
    resource: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **place: Any,
) -> None:
    """Delete recovery points permanently. All others stay complete, whatever the order.

    POINT is an ARN, an id, the beginning of one, or `latest`; `cryo points` lists them. On a terminal, the command asks
    for confirmation; elsewhere it needs --yes. Garbage collection frees the space: `cryo gc`, or the server regularly.
    """
    asks = not (yes or dry_run)
    if asks and not sys.stdin.isatty():  # checked first, because finding the points may take long
        raise ConfigurationError(
            "nothing was deleted: there is no terminal for the confirmation", hint="give --yes, or try --dry-run"
        )
    with open_agent_store(AgentStore(**place)) as call:
        wanted = _wanted(call, points, vault, resource)
        if asks:
            _confirm(wanted)
        for point in wanted:
            if not dry_run:
                _delete(call, point)
            _show(point, dry_run=dry_run, as_json=as_json)


def _wanted(call: Call, names: tuple[str, ...], vault: str | None, resource: str | None) -> list[RecoveryPoint]:
    """Return the recovery points, each once. All names must be valid before any point is deleted."""
    from cryostore.agent.archive.recovery_points import find_point

    found = [find_point(call, name, vault, resource) for name in names]
    return list({point.recovery_point_arn: point for point in found}.values())


def _confirm(wanted: list[RecoveryPoint]) -> None:
    from cryostore.cli.agent.points import words

    for point in wanted:
        output.tell(words(point))
    output.confirm("Delete permanently?")


def _delete(call: Call, point: RecoveryPoint) -> None:
    from cryostore.model.recovery_points import DeleteRecoveryPoint

    name, arn = point.backup_vault_name or "", point.recovery_point_arn or ""
    call.call(DeleteRecoveryPoint(backup_vault_name=name, recovery_point_arn=arn))


def _show(point: RecoveryPoint, *, dry_run: bool, as_json: bool) -> None:
    from cryostore.cli.agent.points import facts, words

    if as_json:
        output.say({"type": "point", "deleted": not dry_run} | facts(point))
    else:
        output.show_now(f"{'would be deleted' if dry_run else 'deleted'}: {words(point)}")
