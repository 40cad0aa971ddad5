"""`cryo repair`: save damaged chunks from other copies, and adopt packs that the catalog does not know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE, OK, WITH_ISSUES
from cryostore.cli.progress import follow_progress
from cryostore.cli.store.affected import damage_lines
from cryostore.cli.store.named_store import NamedStore, open_store, store_options
from cryostore.core.limits import MIB

if TYPE_CHECKING:
    from cryostore.maintenance.verification.repair import RepairResult


@click.command("repair", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(store: NamedStore, dry_run: bool, as_json: bool) -> int:
    """Search all packs for copies of damaged or missing chunks, and adopt packs that the catalog does not know.

    Deletes nothing but the torn tails of packs. Backups, restores and servers may run meanwhile. Repairs known
    damage only: run `cryo scrub` first. It may be interrupted and repeated.
    """
    from cryostore.maintenance.verification.repair import RepairResult, repair

    outcome = RepairResult()
    with open_store(store) as service:
        follow_progress(repair(service.context, outcome, dry_run=dry_run))
    output.outcome(_document(outcome), output.paragraph(_words(outcome, dry_run=dry_run)), as_json=as_json)
    return OK if outcome.is_done else WITH_ISSUES


def _document(outcome: RepairResult) -> dict[str, Any]:
    left = [found.kind._asdict() | {"count": found.count, "examples": found.examples} for found in outcome.left]
    counts = {"marked": outcome.marked, "wanted": outcome.wanted, "lost": outcome.lost, "more": outcome.more}
    counts["records"] = outcome.records
    return counts | asdict(outcome.salvaged) | {"left": left, "damage": asdict(outcome.damage)}


def _words(outcome: RepairResult, *, dry_run: bool) -> Iterator[str]:
    would, done = "would be " if dry_run else "", outcome.salvaged
    yield f"{outcome.wanted} chunks damaged or missing, {outcome.marked} of them found by this run"
    yield f"{would}saved: {done.chunks_saved} chunks, from other copies"
    yield f"{would}adopted: {done.packs_adopted} packs with {done.chunks_adopted} chunks unknown to the catalog"
    yield f"{would}cut: {done.tails_cut} torn tails, {done.tail_bytes / MIB:.1f} MiB"
    yield f"{would}rewritten: {outcome.records} records"
    if outcome.lost:
        yield f"{outcome.lost} chunks are lost until they are uploaded again: back up the affected resources again"
    if outcome.more:
        yield "there is more damage than one run can repair: run `cryo repair` again"
    for found in outcome.left:
        yield f"{found.kind.name}: {found.count}: {found.kind.meaning}"
        yield from (f"  {example}" for example in found.examples)
    yield from damage_lines(outcome.damage)
