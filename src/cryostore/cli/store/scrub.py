"""`cryo scrub`: read and verify stored data, and report damage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE, OK, WITH_ISSUES
from cryostore.cli.progress import follow_progress
from cryostore.cli.quantities import duration_seconds
from cryostore.cli.store.affected import affected_files, damage_lines
from cryostore.cli.store.named_store import NamedStore, open_store, store_options
from cryostore.core.limits import MIB

if TYPE_CHECKING:
    from cryostore.maintenance.claims import Progress
    from cryostore.maintenance.verification.affected import Affected
    from cryostore.maintenance.verification.scrub import ScrubResult
    from cryostore.service import Context

TURN_SECONDS_MAX = 30.0
"""How long to wait until a server finishes its portion: several times as long as it takes to read one."""
TURN_WAIT_SECONDS = 0.2


@click.command("scrub", epilog=EPILOGUE)
@store_options("The store.")
@click.option(
    "--sample",
    "percent",
    type=click.FloatRange(min=0, max=100, min_open=True),
    default=100.0,
    metavar="PERCENT",
    help="Read only this share of the packs.",
)
@click.option(
    "--max-duration",
    "seconds_max",
    callback=duration_seconds,
    default=None,
    metavar="DURATION",
    help="Start no pack after this time: 90s, 30m, 2h, 1d.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(store: NamedStore, percent: float, seconds_max: float | None, as_json: bool) -> int:
    """Read stored data, verify every byte, and report damage and the recovery points it affects.

    The packs whose last verification is oldest come first, so that short runs add up to all. Backups, restores and
    servers may run meanwhile; servers also scrub on their own, and pause that while this command runs. One process of
    a store scrubs at a time: `cryo jobs` names it. The next upload of the same bytes heals a damaged chunk: after
    damage to a recovery point, make another backup of its resource.
    """
    from cryostore.maintenance.verification.affected import Affected
    from cryostore.maintenance.verification.scrub import ScrubResult
    from cryostore.service import Caller

    outcome, damage = ScrubResult(), Affected()
    with open_store(store) as service:
        follow_progress(_steps(service.context, outcome, damage, share=percent / 100, seconds_max=seconds_max))
        files = affected_files(service.as_caller(Caller(access_key_id="local", root=True)), damage)
    facts = asdict(outcome) | {"damage": asdict(damage), "files": files}
    output.outcome(facts, output.paragraph((*_words(outcome), *damage_lines(damage, files))), as_json=as_json)
    return OK if outcome.is_clean and not damage.objects else WITH_ISSUES


def _steps(
    context: Context, outcome: ScrubResult, damage: Affected, *, share: float, seconds_max: float | None
) -> Iterator[Progress]:
    from cryostore.maintenance.verification.affected import find_affected
    from cryostore.maintenance.verification.scrub import scrub

    scrubbing = partial(scrub, context, outcome, share=share, seconds_max=seconds_max)
    yield from _in_turn(scrubbing)
    found = yield from find_affected(context)
    damage.objects, damage.points, damage.jobs = found.objects, found.points, found.jobs


def _in_turn(begin: Callable[[], Iterator[Progress]]) -> Iterator[Progress]:
    """Take the steps of a scrub once a server has finished its portion.

    Raises ClaimHeldError if another process holds the claim for longer.
    """
    from cryostore.catalog.processes.claims import ClaimHeldError

    end = time.monotonic() + TURN_SECONDS_MAX
    while True:
        try:
            yield from begin()
        except ClaimHeldError:
            if time.monotonic() >= end:
                raise
            time.sleep(TURN_WAIT_SECONDS)
        else:
            return


def _words(outcome: ScrubResult) -> Iterator[str]:
    yield f"{outcome.packs} packs verified, {outcome.chunks} chunks, {outcome.read_bytes / MIB:.1f} MiB"
    found = {
        "chunks found damaged": outcome.damaged,
        "chunks known to be damaged still are": outcome.damaged_before,
        "chunks marked as damaged are sound": outcome.sound_again,
        "packs are missing": outcome.packs_missing,
        "chunks could not be verified: the keyring lacks their key": outcome.no_key,
        "chunks could not be read: the disk fails, or a newer version wrote them": outcome.unreadable,
    }
    yield from (f"{count} {finding}" for finding, count in found.items() if count)
