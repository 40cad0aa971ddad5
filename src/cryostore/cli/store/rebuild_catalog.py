"""`cryo rebuild-catalog`: the catalog is lost, the data is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.progress import follow_progress
from cryostore.cli.store.store_place import StorePlace, store_options
from cryostore.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cryostore.maintenance.progress import Progress
    from cryostore.maintenance.rebuild.run import RebuildResult

DONE = 0
WITH_LOSSES = 1


@click.command("rebuild-catalog", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--replace", is_flag=True, help="Make a new catalog although there is one, which is kept beside it.")
@click.option("--json", "as_json", is_flag=True, help="Say the outcome as JSON.")
def command(place: StorePlace, replace: bool, as_json: bool) -> int:
    """Make the catalog anew from the packs, the records beside them and the keyring.

    For when catalog.sqlite, or the database of a shared store, is lost or damaged. Every recovery point comes back,
    with its objects, tags and lifecycle; jobs that had not been committed begin again. All data is read and verified,
    so it takes as long as reading it.

    No server may run on the store meanwhile. The catalog of a shared store is made in an empty database, --catalog:
    servers that still run with the old one stop by themselves within a minute, and never start with it again.
    """
    from cryostore.maintenance.rebuild.run import RebuildResult

    outcome = RebuildResult()
    follow_progress(_steps(place, outcome, replace=replace))
    output.outcome(asdict(outcome), words(outcome), as_json=as_json)
    return WITH_LOSSES if outcome.losses else DONE


def _steps(place: StorePlace, outcome: RebuildResult, *, replace: bool) -> Iterator[Progress]:
    from cryostore.core.time import wall_clock
    from cryostore.maintenance.rebuild.directory import rebuild_directory
    from cryostore.maintenance.rebuild.shared import rebuild_shared

    if place.shared is None:
        assert place.data_dir is not None
        return rebuild_directory(place.data_dir, place.open_keyring(), outcome, clock=wall_clock, replace=replace)
    if replace:
        raise ConfigurationError("--replace is for data directories", hint="name an empty database with --catalog")
    return rebuild_shared(place.shared, outcome)


def words(outcome: RebuildResult) -> str:
    """The outcome for people."""
    return output.paragraph(
        (
            f"{outcome.vaults} vaults, {outcome.recovery_points} recovery points, {outcome.objects} objects",
            f"{outcome.packs} packs, {outcome.chunks} chunks",
            *(f"lost: {loss}" for loss in outcome.losses),
        )
    )
