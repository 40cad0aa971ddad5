"""`cryo jobs`: open jobs and what they keep alive, and the claims of background work."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.store.named_store import NamedStore, open_store, store_options
from cryostore.core.time import span

if TYPE_CHECKING:
    from cryostore.catalog.processes.claims import ClaimRow


@click.command("jobs", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array; times in milliseconds since 1970.")
def command(store: NamedStore, as_json: bool) -> None:
    """Show open backup and restore jobs, and which process does which background work.

    An open job keeps alive what it has written, and its incremental base or the recovery point that it restores. A job
    without a heartbeat ends on its own.

    A process claims background work, so that no other does it at the same time. Each claim is shown with its process
    (machine/process), its last progress, when it began, and when another process may take over unless it is renewed.
    """
    from cryostore.catalog.processes import claims
    from cryostore.maintenance.claims import is_free
    from cryostore.maintenance.pins import pins

    with open_store(store) as service:
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
        output.show("no open jobs, no claims")


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
