"""`cryo scrub`: read what is stored, and say what is damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cryostore.cli.data_dir import data_dir_option, existing_store
from cryostore.cli.duration import duration_seconds
from cryostore.cli.gc import show
from cryostore.cli.hurt import lines
from cryostore.cli.verbs import EPILOGUE
from cryostore.core.limits import MIB

if TYPE_CHECKING:
    from cryostore.maintenance.collection import Progress
    from cryostore.maintenance.damage import Damage
    from cryostore.maintenance.scrub import Scrubbed
    from cryostore.service import Context

WITH_ISSUES = 1


@click.command("scrub", epilog=EPILOGUE)
@data_dir_option("The store.")
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
def command(data_dir: Path, percent: float, seconds_max: float | None, as_json: bool) -> int:
    """Read what is stored, prove every byte, and say what is damaged and what that hurts.

    Packs that were not verified for longest come first, so that short runs add up to all. Backups, restores and a
    server may go on meanwhile; a server scrubs by itself as well. What is damaged is healed by the next upload of the
    same bytes: after damage to a recovery point, make another backup of its resource.
    """
    from cryostore.maintenance.damage import Damage
    from cryostore.maintenance.scrub import Scrubbed

    outcome, damage = Scrubbed(), Damage()
    with existing_store(data_dir) as service:
        show(_steps(service.context, outcome, damage, share=percent / 100, seconds_max=seconds_max))
    if as_json:
        print(json.dumps(asdict(outcome) | {"damage": asdict(damage)}))
    else:
        print("\n".join((*_words(outcome), *lines(damage))))
    return 0 if outcome.is_clean and not damage.objects else WITH_ISSUES


def _steps(
    context: Context, outcome: Scrubbed, damage: Damage, *, share: float, seconds_max: float | None
) -> Iterator[Progress]:
    from cryostore.maintenance.damage import name_damage
    from cryostore.maintenance.scrub import scrub

    yield from scrub(context, outcome, share=share, seconds_max=seconds_max)
    found = yield from name_damage(context)
    damage.objects, damage.points, damage.jobs = found.objects, found.points, found.jobs


def _words(outcome: Scrubbed) -> Iterator[str]:
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
