"""`cryo jobs`: what is open, since when, and what it keeps alive."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from cryostore.cli.data_dir import data_dir_option, existing_store
from cryostore.cli.verbs import EPILOGUE
from cryostore.core.time import SECOND_MS


@click.command("jobs", epilog=EPILOGUE)
@data_dir_option("The store.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array; times in milliseconds since 1970.")
def command(data_dir: Path, as_json: bool) -> None:
    """Show backup and restore jobs that have not ended, and a garbage collection that runs.

    A job keeps alive what it has written and, while it is open, its base or the recovery point it restores. One that
    gives no sign of life ends by itself.
    """
    from cryostore.core.time import wall_clock
    from cryostore.maintenance.pins import pins

    with existing_store(data_dir) as service:
        found = pins(service.context)
    if as_json:
        print(json.dumps([asdict(pin) for pin in found], indent=2))
        return
    now_ms = wall_clock()
    for pin in found:
        times = f"begun {_span(now_ms - pin.begun_ms)} ago, idle {_span(now_ms - pin.active_ms)}"
        keeps = f", keeps {pin.point_id}" if pin.point_id else ""
        uploads = f", {pin.open_uploads} open uploads" if pin.open_uploads else ""
        where = f" {pin.vault} {pin.resource_arn}" if pin.vault else ""
        lapses = f"lapses in {_span(pin.lapses_ms - now_ms)}"
        print(f"{pin.kind} {pin.id} {pin.state}{where}: {times}, {lapses}{keeps}{uploads}")
    if not found:
        print("nothing is open")


def _span(milliseconds: int) -> str:
    """A time span in its two largest units."""
    seconds = max(milliseconds, 0) // SECOND_MS
    parts = [(seconds // 86_400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{number} {unit}" for number, unit in parts[:2])
