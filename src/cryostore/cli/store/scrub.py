"""`cryo scrub`: read what is stored, and say what is damaged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.progress import follow_progress
from cryostore.cli.quantities import duration_seconds
from cryostore.cli.store.affected import files_hurt, lines
from cryostore.cli.store.store_place import StorePlace, existing_store, store_options
from cryostore.core.limits import MIB

if TYPE_CHECKING:
    from cryostore.maintenance.progress import Progress
    from cryostore.maintenance.verification.affected import Affected
    from cryostore.maintenance.verification.scrub import ScrubResult
    from cryostore.service import Context

WITH_ISSUES = 1
TURN_SECONDS_MAX = 30.0
"""How long what a server is at is waited for: several times what it reads at once."""
TURN_WAIT_SECONDS = 0.2


@click.command("scrub", epilog=EPILOGUE)
@store_options("The store.")
@click.option(
    "--sample",
    "percent",
    type=click.FloatRange(min=0, max=100, min_open=True),
    default=100.0,
    metavar="PERCENT",
    help="Read only so much of the packs.",
)
@click.option(
    "--max-duration",
    "seconds_max",
    callback=duration_seconds,
    default=None,
    metavar="DURATION",
    help="Begin no pack after so long: 90s, 30m, 2h, 1d.",
)
@click.option("--json", "as_json", is_flag=True, help="Say the outcome as JSON.")
def command(place: StorePlace, percent: float, seconds_max: float | None, as_json: bool) -> int:
    """Read what is stored, prove every byte, and say what is damaged and what that hurts.

    Packs that were not verified for longest come first, so that short runs add up to all. Backups, restores and
    servers may go on meanwhile; servers scrub by themselves as well, and leave it to this command while it runs. One
    process of a store scrubs at a time: `cryo jobs` says which. What is damaged is healed by the next upload of the
    same bytes: after damage to a recovery point, make another backup of its resource.
    """
    from cryostore.maintenance.verification.affected import Affected
    from cryostore.maintenance.verification.scrub import ScrubResult
    from cryostore.service import Caller

    outcome, damage = ScrubResult(), Affected()
    with existing_store(place) as service:
        follow_progress(_steps(service.context, outcome, damage, share=percent / 100, seconds_max=seconds_max))
        files = files_hurt(service.as_caller(Caller(access_key_id="local", root=True)), damage)
    facts = asdict(outcome) | {"damage": asdict(damage), "files": files}
    output.outcome(facts, output.paragraph((*_words(outcome), *lines(damage, files))), as_json=as_json)
    return 0 if outcome.is_clean and not damage.objects else WITH_ISSUES


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
    """The steps of a scrub, once the portion ends that a server is at. Raises ClaimHeldError if somebody is at more."""
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
        "chunks were known to be damaged, and are": outcome.damaged_before,
        "damaged chunks proved sound": outcome.sound_again,
        "packs are missing": outcome.packs_missing,
        "chunks could not be proved: the keyring lacks their key": outcome.no_key,
        "chunks could not be read: the disk fails, or a later version wrote them": outcome.unreadable,
    }
    yield from (f"{count} {what}" for what, count in found.items() if count)
