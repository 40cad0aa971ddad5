"""`cryo gc`: collect garbage now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.progress import follow_progress
from cryostore.cli.store.store_place import StorePlace, existing_store, store_options
from cryostore.core.limits import MIB
from cryostore.core.time import HOUR_MS

if TYPE_CHECKING:
    from cryostore.maintenance.garbage_collection.run import CollectionResult


@click.command("gc", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--dry-run", is_flag=True, help="Change nothing; only count.")
@click.option("--json", "as_json", is_flag=True, help="Say the outcome as JSON.")
@click.option(
    "--quarantine",
    "quarantine_hours",
    type=click.FloatRange(min=0),
    default=None,
    metavar="HOURS",
    help="How long garbage waits before it is removed; 24 if left out.",
)
def command(place: StorePlace, dry_run: bool, as_json: bool, quarantine_hours: float | None) -> None:
    """Give the space back that nothing needs any more.

    Backups, restores and a server may go on meanwhile. What is found is condemned first, and removed by a run that
    comes after its quarantine; a server makes a run every six hours by itself. Packs of mostly garbage are rewritten.
    """
    from cryostore.maintenance import maintain
    from cryostore.maintenance.garbage_collection.collect import collect
    from cryostore.maintenance.garbage_collection.run import CollectionResult

    quarantine_ms = None if quarantine_hours is None else round(quarantine_hours * HOUR_MS)
    outcome = CollectionResult()
    with existing_store(place) as service:
        if not dry_run:
            maintain(service)
        follow_progress(collect(service.context, outcome, quarantine_ms=quarantine_ms, dry_run=dry_run))
    output.outcome(asdict(outcome), words(outcome, dry_run=dry_run), as_json=as_json)


def words(outcome: CollectionResult, *, dry_run: bool) -> str:
    """The outcome for people."""
    would = "would be " if dry_run else ""
    skipped = (f"left for later: {outcome.packs_skipped} packs, for want of room",) if outcome.packs_skipped else ()
    return output.paragraph(
        (
            f"{outcome.chunks} chunks",
            f"{would}condemned: {outcome.condemned} chunks, {_mib(outcome.condemned_bytes)}",
            f"{would}waiting: {outcome.waiting} chunks, {_mib(outcome.waiting_bytes)}",
            f"{would}removed: {outcome.removed} chunks, {_mib(outcome.removed_bytes)}",
            f"{would}compacted: {outcome.packs_compacted} packs, {_mib(outcome.moved_bytes)} moved",
            f"{would}deleted: {outcome.packs_deleted} packs, {_mib(outcome.deleted_bytes)} given back",
            *skipped,
            *_marking(outcome),
        )
    )


def _marking(outcome: CollectionResult) -> Iterator[str]:
    if outcome.passes > 1:
        kept = 100 * outcome.false_share
        yield f"marked in {outcome.passes} passes; up to {kept:.1f} % of the garbage waits for the next run"


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"
