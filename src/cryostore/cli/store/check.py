"""`cryo check`: compare the catalog with the packs, and report what does not match."""

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
    from cryostore.maintenance.verification.check import CheckResult


@click.command("check", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--data", is_flag=True, help="Also read and verify every byte of every chunk.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(store: NamedStore, data: bool, as_json: bool) -> int:
    """Compare the catalog with the packs, both ways; report mismatches and the recovery points they affect.

    Marks damaged chunks, so that the next backup of the same data heals them, and changes nothing else. Backups,
    restores and servers may run meanwhile. Each kind of finding comes with its meaning and what to do next.
    """
    from cryostore.maintenance.verification.check import CheckResult, check

    outcome = CheckResult()
    with open_store(store) as service:
        follow_progress(check(service.context, outcome, data=data))
    output.outcome(_document(outcome), output.paragraph(_words(outcome)), as_json=as_json)
    return OK if outcome.is_clean else WITH_ISSUES


def _document(outcome: CheckResult) -> dict[str, Any]:
    findings = [found.kind._asdict() | {"count": found.count, "examples": found.examples} for found in outcome.findings]
    seen = asdict(outcome.packs) | {"objects": outcome.objects}
    return seen | {"findings": findings, "damage": asdict(outcome.damage), "marked": outcome.marked}


def _words(outcome: CheckResult) -> Iterator[str]:
    seen = outcome.packs
    yield f"{seen.packs} packs, {seen.chunks} chunks, {outcome.objects} objects"
    yield f"{seen.garbage} chunks of garbage, {seen.garbage_bytes / MIB:.1f} MiB, await garbage collection"
    for found in outcome.findings:
        yield f"{found.kind.name}: {found.count}: {found.kind.meaning}"
        yield from (f"  {example}" for example in found.examples)
        if found.count > len(found.examples) > 1:
            yield "  and more"
        yield f"  what to do: {found.kind.advice}"
    yield from damage_lines(outcome.damage)
    if outcome.marked:
        yield f"{outcome.marked} chunks marked as damaged: the next backup of the same data heals them"
    if outcome.not_marked:
        yield f"damaged chunks could not be marked, so backups do not heal them: {outcome.not_marked}"
    if outcome.is_clean:
        yield "no problems found"
