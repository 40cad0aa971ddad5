"""`cryo check`: compare the catalog with the packs."""

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
    from cryostore.maintenance.verification.check import CheckResult

WITH_ISSUES = 1


@click.command("check", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--data", is_flag=True, help="Read and prove every byte of every chunk, too.")
@click.option("--json", "as_json", is_flag=True, help="Say the outcome as JSON.")
def command(place: StorePlace, data: bool, as_json: bool) -> int:
    """Compare the catalog with the packs, both ways, and say what does not fit and what that hurts.

    Marks chunks that it finds damaged, so that the next backup of the same data heals them, and changes nothing else.
    Backups, restores and a server may go on meanwhile. Each kind of finding comes with its meaning and what to do next.
    """
    from cryostore.maintenance.verification.check import CheckResult, check

    outcome = CheckResult()
    with existing_store(place) as service:
        follow_progress(check(service.context, outcome, data=data))
    output.outcome(_document(outcome), output.paragraph(_words(outcome)), as_json=as_json)
    return 0 if outcome.is_clean else WITH_ISSUES


def _document(outcome: CheckResult) -> dict[str, Any]:
    findings = [found.kind._asdict() | {"count": found.count, "examples": found.examples} for found in outcome.findings]
    seen = asdict(outcome.packs) | {"objects": outcome.objects}
    return seen | {"findings": findings, "damage": asdict(outcome.damage), "marked": outcome.marked}


def _words(outcome: CheckResult) -> Iterator[str]:
    seen = outcome.packs
    yield f"{seen.packs} packs, {seen.chunks} chunks, {outcome.objects} objects"
    yield f"{seen.garbage} chunks of garbage, {seen.garbage_bytes / MIB:.1f} MiB, wait to be collected"
    for found in outcome.findings:
        yield f"{found.kind.name}: {found.count}: {found.kind.meaning}"
        yield from (f"  {example}" for example in found.examples)
        if found.count > len(found.examples) > 1:
            yield "  and more"
        yield f"  what to do: {found.kind.advice}"
    yield from lines(outcome.damage)
    if outcome.marked:
        yield f"{outcome.marked} chunks marked as damaged: the next backup of the same data heals them"
    if outcome.not_marked:
        yield f"damaged chunks could not be marked, so that backups do not heal them: {outcome.not_marked}"
    if outcome.is_clean:
        yield "nothing is wrong"
