"""`cryo jobs`: what is open, since when, and what it keeps alive; and which process does what in the background."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.store.store_place import StorePlace, existing_store, store_options
from cryostore.core.time import span

if TYPE_CHECKING:
    from cryostore.catalog.processes.claims import ClaimRow


@click.command("jobs", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array; times in milliseconds since 1970.")
def command(place: StorePlace, as_json: bool) -> None:
    """Show backup and restore jobs that have not ended, and who does what in the background.

    A job keeps alive what it has written and, while it is open, its base or the recovery point it restores. One that
    gives no sign of life ends by itself.

    Background work is claimed, so that one process does it: which one (machine/process), what it said last, since when,
    and when another one may take over if it gives no further sign of life.
    """
    from cryostore.catalog.processes import claims
    from cryostore.maintenance.claims import is_free
    from cryostore.maintenance.pins import pins

    with existing_store(place) as service:
        found = pins(service.context)
        held = service.context.database.read(claims.held)
        lapsed = [row for row in held if is_free(service.context, row)]
        now_ms = service.context.clock()
    if as_json:
        shown = [asdict(pin) for pin in found]
        output.say([*shown, *(_claim(row, lapsed=row in lapsed) for row in held)], indent=2)
        return
    for pin in found:
        times = f"begun {span(now_ms - pin.begun_ms)} ago, idle {span(now_ms - pin.active_ms)}"
        keeps = f", keeps {pin.point_id}" if pin.point_id else ""
        uploads = f", {pin.open_uploads} open uploads" if pin.open_uploads else ""
        where = f" {pin.vault} {pin.resource_arn}" if pin.vault else ""
        lapses = f"lapses in {span(pin.lapses_ms - now_ms)}"
        output.show(f"{pin.kind} {pin.id} {pin.state}{where}: {times}, {lapses}{keeps}{uploads}")
    for row in held:
        lapses = f"lapses in {span(row.until_ms - now_ms)}" if row not in lapsed else "LAPSED"
        doing = f" {row.doing}" if row.doing else ""
        output.show(f"claim {row.work} by {row.holder}:{doing} begun {span(now_ms - row.begun_ms)} ago, {lapses}")
    if not found and not held:
        output.show("nothing is open")


def _claim(row: ClaimRow, *, lapsed: bool) -> dict[str, Any]:
    return {
        "kind": "claim",
        "id": row.work,
        "state": "LAPSED" if lapsed else "RUNNING",
        "holder": row.holder,
        "fence": row.fencing_token,
        "doing": row.doing,
        "begun_ms": row.begun_ms,
        "lapses_ms": row.until_ms,
    }
