"""`cryo repair`: put right what can be put right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.progress import follow_progress
from cryostore.cli.store.affected import lines
from cryostore.cli.store.store_place import StorePlace, existing_store, store_options
from cryostore.core.limits import MIB

if TYPE_CHECKING:
    from cryostore.maintenance.verification.repair import RepairResult

WITH_ISSUES = 1


@click.command("repair", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--dry-run", is_flag=True, help="Change nothing; only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Say the outcome as JSON.")
def command(place: StorePlace, dry_run: bool, as_json: bool) -> int:
    """Look in all packs for chunks that are damaged or missing, and take up packs that the catalog does not know.

    Deletes nothing but the unfinished ends of packs. Backups, restores and a server may go on meanwhile. Helps only
    with damage that is known: run `cryo scrub` first. May be broken off and repeated.
    """
    from cryostore.maintenance.verification.repair import RepairResult, repair

    outcome = RepairResult()
    with existing_store(place) as service:
        follow_progress(repair(service.context, outcome, dry_run=dry_run))
    output.outcome(_document(outcome), output.paragraph(_words(outcome, dry_run=dry_run)), as_json=as_json)
    return 0 if outcome.is_done else WITH_ISSUES


def _document(outcome: RepairResult) -> dict[str, Any]:
    left = [found.kind._asdict() | {"count": found.count, "examples": found.examples} for found in outcome.left]
    counts = {"marked": outcome.marked, "wanted": outcome.wanted, "lost": outcome.lost, "more": outcome.more}
    counts["records"] = outcome.records
    return counts | asdict(outcome.salvaged) | {"left": left, "damage": asdict(outcome.damage)}


def _words(outcome: RepairResult, *, dry_run: bool) -> Iterator[str]:
    would, done = "would be " if dry_run else "", outcome.salvaged
    yield f"{outcome.wanted} chunks damaged or missing, {outcome.marked} of them found now"
    yield f"{would}saved: {done.chunks_saved} chunks, from other copies"
    yield f"{would}taken up: {done.packs_adopted} packs with {done.chunks_adopted} chunks that had no row"
    yield f"{would}cut: {done.tails_cut} torn tails, {done.tail_bytes / MIB:.1f} MiB"
    yield f"{would}written anew: {outcome.records} records"
    if outcome.lost:
        yield f"{outcome.lost} chunks are lost until they are uploaded again: back up again what is hurt"
    if outcome.more:
        yield "there were more than can be looked for at once: run `cryo repair` again"
    for found in outcome.left:
        yield f"{found.kind.name}: {found.count}: {found.kind.meaning}"
        yield from (f"  {example}" for example in found.examples)
    yield from lines(outcome.damage)
