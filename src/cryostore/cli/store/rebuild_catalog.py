"""`cryo rebuild-catalog`: make a lost catalog again from the packs and records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE, OK, WITH_ISSUES
from cryostore.cli.progress import follow_progress
from cryostore.cli.store.named_store import NamedStore, store_options
from cryostore.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cryostore.maintenance.claims import Progress
    from cryostore.maintenance.rebuild.run import RebuildResult


@click.command("rebuild-catalog", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--replace", is_flag=True, help="Replace an existing catalog, which is kept beside the new one.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(store: NamedStore, replace: bool, as_json: bool) -> int:
    """Rebuild the catalog from the packs, the records beside them and the keyring.

    For a store whose catalog.sqlite, or whose database, is lost or damaged. Every recovery point comes back, with its
    objects, tags and lifecycle; uncommitted jobs start over. All data is read and verified, which takes as long as
    reading it.

    No server may run on the store meanwhile. The catalog of a shared store is rebuilt in an empty database, --catalog:
    servers that still use the old one stop within a minute, and never start with it again.
    """
    from cryostore.maintenance.rebuild.run import RebuildResult

    outcome = RebuildResult()
    follow_progress(_steps(store, outcome, replace=replace))
    output.outcome(asdict(outcome), words(outcome), as_json=as_json)
    return WITH_ISSUES if outcome.losses else OK


def _steps(store: NamedStore, outcome: RebuildResult, *, replace: bool) -> Iterator[Progress]:
    from cryostore.core.time import wall_clock
    from cryostore.maintenance.rebuild.stores import rebuild_directory, rebuild_shared

    if store.shared is None:
        assert store.data_dir is not None
        return rebuild_directory(store.data_dir, store.open_keyring(), outcome, clock=wall_clock, replace=replace)
    if replace:
        raise ConfigurationError("--replace is for data directories", hint="name an empty database with --catalog")
    return rebuild_shared(store.shared, outcome)


def words(outcome: RebuildResult) -> str:
    """Return the result as text."""
    return output.paragraph(
        (
            f"{outcome.vaults} vaults, {outcome.recovery_points} recovery points, {outcome.objects} objects",
            f"{outcome.packs} packs, {outcome.chunks} chunks",
            *(f"lost: {loss}" for loss in outcome.losses),
        )
    )
