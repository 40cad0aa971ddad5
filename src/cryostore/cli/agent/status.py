"""`cryo status`: show the last good recovery point of each resource, for people and for monitoring."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.exit_codes import EPILOGUE, OK, WITH_ISSUES
from cryostore.cli.quantities import duration_seconds, time_text
from cryostore.core.quantities import size_text
from cryostore.core.time import SECOND_MS, span

if TYPE_CHECKING:
    from cryostore.agent.verification.resource_status import ResourceStatus

DAMAGED = (
    "the last good recovery point is damaged in the store: `cryo verify` names the files, another backup repairs it"
)
TITLES = ("RESOURCE", "VAULT", "LAST GOOD", "AGE", "SIZE", "POINTS", "NOW")


@click.command("status", epilog=EPILOGUE)
@click.option("--vault", default=None, help="Show only this vault, instead of all.")
@click.option(
    "--resource", default=None, metavar="NAME", help="Show only this resource, which must have a recovery point."
)
@click.option(
    "--max-age",
    "max_age_seconds",
    callback=duration_seconds,
    default=None,
    metavar="AGE",
    help="Exit with 1 if a resource has no good recovery point, or only a damaged or older one: 26h, 3d.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each; times in seconds since 1970.")
@agent_store_options
def command(vault: str | None, resource: str | None, max_age_seconds: float | None, as_json: bool, **place: Any) -> int:
    """Show the last good recovery point of each resource, its age, and whether a backup is running.

    The age is that of the data: the time since the start of the run that made the recovery point. With --max-age, this
    is a check for monitoring: then a store without any recovery point is an issue, and so is a --resource without one.
    """
    from cryostore.agent.verification.resource_status import resource_statuses
    from cryostore.core.time import wall_clock

    without_key = replace(AgentStore(**place), key=None)  # opens no archive, so it needs no passphrase
    with open_agent_store(without_key) as call:
        now_ms = wall_clock()
        found = resource_statuses(call, now_ms, vault, resource)
    age_ms_max = None if max_age_seconds is None else round(max_age_seconds * SECOND_MS)
    old = [each for each in found if age_ms_max is not None and each.is_older(now_ms, age_ms_max)]
    if as_json:
        for each in found:
            output.say(facts(each, now_ms, too_old=each in old))
    else:
        output.show_text(words(found, old, now_ms))
    missing = not found and (age_ms_max is not None or resource is not None)
    damaged = age_ms_max is not None and any(each.damaged for each in found)
    return WITH_ISSUES if old or missing or damaged else OK


def words(found: list[ResourceStatus], old: list[ResourceStatus], now_ms: int) -> str:
    """Return a table for people, with the problems below it."""
    if not found:
        return "no recovery point yet: `cryo backup PATH` makes one"
    rows = [TITLES, *(_row(each, now_ms) for each in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for each in found:
        if each.last is not None and each.last.status_message:
            lines.append(f"{each.name}: {each.last.status_message}")
        if each.failed is not None:
            why = each.failed.status_message or (each.failed.state or "").lower()
            lines.append(f"{each.name}: the run of {time_text(each.failed.creation_date)} failed: {why}")
        if each.damaged:
            lines.append(f"{each.name}: {DAMAGED}")
        if each.is_ahead(now_ms):
            lines.append(f"{each.name}: the last good run started in the future: a clock is or was wrong")
    lines += [f"{each.name}: too old" if each.last else f"{each.name}: no good recovery point" for each in old]
    return output.paragraph(lines)


def _row(each: ResourceStatus, now_ms: int) -> tuple[str, ...]:
    now = "" if each.running is None else f"running since {time_text(each.running.creation_date)}"
    age = each.age_ms(now_ms)
    if each.last is None or age is None:
        return each.name, each.vault, "never", "", "", str(each.points), now
    size = size_text(each.last.backup_size_in_bytes or 0)
    return each.name, each.vault, time_text(each.last.creation_date), span(age), size, str(each.points), now


def facts(each: ResourceStatus, now_ms: int, *, too_old: bool) -> dict[str, Any]:
    """Return a resource for programs, with the names of the API where it has them."""
    age, last, failed = each.age_ms(now_ms), each.last, each.failed
    return {
        "ResourceName": each.name,
        "ResourceArn": each.resource_arn,
        "BackupVaultName": each.vault,
        "RecoveryPointArn": last.recovery_point_arn if last else None,
        "CreationDate": last.creation_date if last else None,
        "StatusMessage": last.status_message if last else None,
        "BackupSizeInBytes": last.backup_size_in_bytes if last else None,
        "age_seconds": None if age is None else age // SECOND_MS,
        "recovery_points": each.points,
        "too_old": too_old,
        "damaged": each.damaged,
        "running_job_id": each.running.backup_job_id if each.running else None,
        "failed_job_id": failed.backup_job_id if failed else None,
        "failed_message": failed.status_message if failed else None,
    }
