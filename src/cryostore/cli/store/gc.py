"""`cryo gc`: run a garbage collection now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.progress import follow_progress
from cryostore.cli.store.named_store import NamedStore, open_store, store_options
from cryostore.core.limits import MIB
from cryostore.core.time import HOUR_MS

if TYPE_CHECKING:
    from cryostore.maintenance.garbage_collection.run import CollectionResult


@click.command("gc", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print the counts.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option(
    "--quarantine",
    "quarantine_hours",
    type=click.FloatRange(min=0),
    default=None,
    metavar="HOURS",
    help="How long garbage is kept before it is removed; 24 if left out.",
)
def command(store: NamedStore, dry_run: bool, as_json: bool, quarantine_hours: float | None) -> None:
    """Free the space of chunks that no recovery point or job needs.

    Backups, restores and servers may run meanwhile. Garbage is condemned first; a run after its quarantine removes it.
    A server collects garbage every six hours. Packs that are mostly garbage are rewritten.
    """
    from cryostore.maintenance.background_tasks import maintain
    from cryostore.maintenance.garbage_collection.collect import collect
    from cryostore.maintenance.garbage_collection.run import CollectionResult

    quarantine_ms = None if quarantine_hours is None else round(quarantine_hours * HOUR_MS)
    outcome = CollectionResult()
    with open_store(store) as service:
        if not dry_run:
            maintain(service)
        follow_progress(collect(service.context, outcome, quarantine_ms=quarantine_ms, dry_run=dry_run))
    output.outcome(asdict(outcome), words(outcome, dry_run=dry_run), as_json=as_json)


def words(outcome: CollectionResult, *, dry_run: bool) -> str:
    """Return the result as text."""
    would = "would be " if dry_run else ""
    skipped = (f"skipped: {outcome.packs_skipped} packs, for lack of space",) if outcome.packs_skipped else ()
    return output.paragraph(
        (
            f"{outcome.chunks} chunks",
            f"{would}condemned: {outcome.condemned} chunks, {_mib(outcome.condemned_bytes)}",
            f"{would}in quarantine: {outcome.waiting} chunks, {_mib(outcome.waiting_bytes)}",
            f"{would}removed: {outcome.removed} chunks, {_mib(outcome.removed_bytes)}",
            f"{would}compacted: {outcome.packs_compacted} packs, {_mib(outcome.moved_bytes)} moved",
            f"{would}deleted: {outcome.packs_deleted} packs, {_mib(outcome.deleted_bytes)} freed",
            *skipped,
            *_marking(outcome),
        )
    )


def _marking(outcome: CollectionResult) -> Iterator[str]:
    if outcome.passes > 1:
        kept = 100 * outcome.false_share
        yield f"marked in {outcome.passes} passes; up to {kept:.1f} % of the garbage is left for the next run"


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"
