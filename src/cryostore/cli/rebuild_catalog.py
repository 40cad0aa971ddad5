"""`cryo rebuild-catalog`: the catalog is lost, the data is not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cryostore.cli.data_dir import data_dir_option, named_keyring
from cryostore.cli.gc import show
from cryostore.cli.verbs import EPILOGUE

if TYPE_CHECKING:
    from cryostore.maintenance.rebuild import Rebuilt

DONE = 0
WITH_LOSSES = 1


@click.command("rebuild-catalog", epilog=EPILOGUE)
@data_dir_option("The store.")
@click.option("--replace", is_flag=True, help="Make a new catalog although there is one, which is kept beside it.")
@click.option("--json", "as_json", is_flag=True, help="Say the outcome as JSON.")
def command(data_dir: Path, replace: bool, as_json: bool) -> int:
    """Make the catalog anew from the packs, the records beside them and the keyring.

    For when catalog.sqlite is lost or damaged. Every recovery point comes back, with its objects, tags and lifecycle;
    jobs that had not been committed begin again. All data is read and verified, so it takes as long as reading it. No
    server may run on the directory meanwhile.
    """
    from cryostore.core.time import wall_clock
    from cryostore.maintenance.rebuild import Rebuilt
    from cryostore.maintenance.rebuild_store import rebuild_store
    from cryostore.service.keyring import existing_keyring

    outcome = Rebuilt()
    show(
        rebuild_store(data_dir, existing_keyring(data_dir, named_keyring()), outcome, clock=wall_clock, replace=replace)
    )
    print(json.dumps(asdict(outcome)) if as_json else words(outcome))
    return WITH_LOSSES if outcome.losses else DONE


def words(outcome: Rebuilt) -> str:
    """The outcome for people."""
    return "\n".join(
        (
            f"{outcome.vaults} vaults, {outcome.recovery_points} recovery points, {outcome.objects} objects",
            f"{outcome.packs} packs, {outcome.chunks} chunks",
            *(f"lost: {loss}" for loss in outcome.losses),
        )
    )
