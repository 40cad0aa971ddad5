"""`cryo migrate`: move a store between a directory and a shared place, or between two shared places."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE, OK, WITH_ISSUES
from cryostore.cli.progress import follow
from cryostore.cli.store.named_store import click_option, config_option, named_store
from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import MIB
from cryostore.options.option import STORE

if TYPE_CHECKING:
    from cryostore.maintenance.migrate.run import MigrationPlan, MigrationResult
    from cryostore.maintenance.migrate.side import StageProgress
    from cryostore.maintenance.migrate.stores import MigrationStore
    from cryostore.service.opening.shared_store import SharedStoreAddress

SHOWN_MAX = 20
STORE_OPTIONS = {option.key: option for option in STORE}
KEYRING = replace(STORE_OPTIONS["keyring"], unsaid="")
"""Without a default: the copy of the keyring must be made before."""
TO_CATALOG = "CRYO_TO_CATALOG"
TO_BLOBS = "CRYO_TO_BLOBS"


@click.command("migrate", epilog=EPILOGUE)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    envvar="CRYO_DATA_DIR",
    show_envvar=True,
    help="The directory: the source, or with --back the target.",
)
@click_option(STORE_OPTIONS["catalog"])
@click_option(STORE_OPTIONS["blobs"])
@click_option(KEYRING, help_text="The keyring of the store at its new place: a copy, made before.")
@config_option()
@click.option(
    "--to-catalog",
    metavar="URL",
    default=None,
    help=f"Move the shared store to this catalog, an empty one, and to --to-blobs.  [env var: {TO_CATALOG}]",
)
@click.option(
    "--to-blobs",
    metavar="URL",
    default=None,
    envvar=TO_BLOBS,
    show_envvar=True,
    help="An empty place for the blobs of a shared store that is moved to --to-catalog.",
)
@click.option("--back", is_flag=True, help="Move the shared store to the directory.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would be copied.")
@click.option("--verify-data", is_flag=True, help="Read all data again at its new place, not only samples.")
@click.option(
    "--take-back", is_flag=True, help="Allow the use of a store that was moved away; never use its copy as well."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    data_dir: Path | None,
    to_catalog: str | None,
    to_blobs: str | None,
    back: bool,
    dry_run: bool,
    verify_data: bool,
    take_back: bool,
    as_json: bool,
    **texts: Any,
) -> int:
    """Move a store with its whole history from a directory to a catalog and blobs that many nodes share, or back.

    With --to-catalog and --to-blobs, move a shared store to another shared place.

    Stop every server before. The new place must be empty; it is verified row by row, and cannot be opened before that.
    After any interruption, repeat the command: it resumes. The old store is kept unchanged and cannot be opened any
    more; --take-back allows its use again.
    """
    shared = _shared(texts)
    if take_back:
        return _take_back(data_dir, shared, as_json=as_json)
    to_catalog = _to_catalog(to_catalog)
    if to_catalog or to_blobs:
        source, target = _between(data_dir, shared, to_catalog, to_blobs)
    else:
        source, target = _there_or_back(data_dir, shared, back=back)
    if dry_run:
        return _say_plan(source, as_json=as_json)
    assert shared is not None
    return _move(source, target, shared, verify_data=verify_data, as_json=as_json)


def _shared(texts: dict[str, Any]) -> SharedStoreAddress | None:
    """Return the shared store that the options name, if any. Raises ConfigurationError if a part is missing."""
    config = texts.pop("config")
    return named_store({"data_dir": None, **texts}, config).shared


def _to_catalog(given: str | None) -> str | None:
    """Return the option, or else the variable, which may hold a password. Raises ConfigurationError."""
    from cryostore.options.sources import require_no_password

    if given is not None:
        require_no_password(given, "--to-catalog", TO_CATALOG)
    return given or os.environ.get(TO_CATALOG)


def _there_or_back(
    data_dir: Path | None, shared: SharedStoreAddress | None, *, back: bool
) -> tuple[MigrationStore, MigrationStore]:
    """Return source and target of which one is a directory. Raises ConfigurationError."""
    from cryostore.maintenance.migrate.stores import DirectoryStore, SharedStore

    if data_dir is None or shared is None:
        missing = "--data-dir" if data_dir is None else "--catalog, --blobs and --keyring"
        raise ConfigurationError(f"a move needs a source and a target: give {missing}")
    directory, nodes = DirectoryStore(data_dir, shared.keyring), SharedStore(shared)
    return (nodes, directory) if back else (directory, nodes)


def _between(
    data_dir: Path | None, shared: SharedStoreAddress | None, to_catalog: str | None, to_blobs: str | None
) -> tuple[MigrationStore, MigrationStore]:
    """Return source and target that are both shared stores. Raises ConfigurationError."""
    from cryostore.maintenance.migrate.stores import SharedStore

    if data_dir is not None:
        raise ConfigurationError(
            "--to-catalog and --to-blobs are the target of a shared store",
            hint="a directory is moved to --catalog and --blobs",
        )
    if shared is None or to_catalog is None or to_blobs is None:
        missing = "--catalog, --blobs and --keyring" if shared is None else "--to-catalog and --to-blobs together"
        raise ConfigurationError(f"a move needs a source and a target: give {missing}")
    return SharedStore(shared), SharedStore(shared._replace(catalog=to_catalog, blobs=to_blobs))


def _move(
    source: MigrationStore, target: MigrationStore, shared: SharedStoreAddress, *, verify_data: bool, as_json: bool
) -> int:
    from cryostore.core.ids import random_id
    from cryostore.core.time import wall_clock
    from cryostore.maintenance.migrate.run import MigrationResult
    from cryostore.maintenance.migrate.stores import migrate_store

    keyring, outcome = shared.open_keyring(), MigrationResult()
    steps = migrate_store(source, target, keyring, outcome, clock=wall_clock, new_id=random_id, everything=verify_data)
    follow(_timed(steps), lambda timed: progress_words(*timed))
    words = (*_words(outcome), *_next(outcome, target, keyring.place))
    output.outcome(_document(outcome), output.paragraph(words), as_json=as_json)
    return OK if outcome.is_clean else WITH_ISSUES


def _take_back(data_dir: Path | None, shared: SharedStoreAddress | None, *, as_json: bool) -> int:
    from cryostore.maintenance.migrate.stores import DirectoryStore, SharedStore, take_back_store

    if data_dir is not None:
        place: MigrationStore = DirectoryStore(data_dir)
        other = take_back_store(place, None)
    elif shared is not None:
        place = SharedStore(shared)
        other = take_back_store(place, shared.open_keyring())
    else:
        raise ConfigurationError("no store to take back is named", hint="name it with --data-dir")
    if as_json:
        output.say({"taken_back": place.name, "was_moved_to": other})
    else:
        output.show(f"{place.name} can be used again")
        output.show(f"never serve {other} as well: from now on the two stores differ")
    return OK


def _say_plan(source: MigrationStore, *, as_json: bool) -> int:
    from cryostore.maintenance.migrate.run import plan
    from cryostore.maintenance.migrate.stores import require_store

    require_store(source)
    with source.looked_at() as side:
        found = plan(side)
    output.outcome(asdict(found), output.paragraph(_plan_words(found)), as_json=as_json)
    return OK


def _plan_words(found: MigrationPlan) -> Iterator[str]:
    yield f"would be copied: {found.blobs} blobs with at least {found.chunk_bytes / MIB:.1f} MiB"
    yield f"{sum(found.rows.values())} rows: {', '.join(f'{name} {rows}' for name, rows in found.rows.items() if rows)}"


def _timed(steps: Iterator[StageProgress]) -> Iterator[tuple[StageProgress, float]]:
    """Yield each step with the seconds since its stage began."""
    stage, begun = "", 0.0
    for step in steps:
        now = time.monotonic()
        if step.stage != stage:
            stage, begun = step.stage, now
        yield step, now - begun


def progress_words(step: StageProgress, seconds: float) -> str:
    """Return how far a stage is that began `seconds` ago, and an estimate of the time left."""
    words = f"{step.stage} {step.done}" + (f" of {step.total}" if step.total else "")
    if step.bytes_done:
        words += f", {step.bytes_done / MIB:.0f} MiB"
        if seconds >= 1:
            words += f", {step.bytes_done / MIB / seconds:.1f} MiB/s"
    if step.total and step.done and seconds >= 1:
        left = round(seconds * max(step.total - step.done, 0) / step.done)
        words += f", about {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
    return words


def _document(outcome: MigrationResult) -> dict[str, Any]:
    tables = {name: digested._asdict() for name, digested in outcome.tables.items()}
    return asdict(outcome) | {"tables": tables, "clean": outcome.is_clean}


def _words(outcome: MigrationResult) -> Iterator[str]:
    if outcome.done_before:
        yield f"{outcome.source} was already moved to {outcome.target}: nothing to do"
        return
    carried, verified = outcome.carried, outcome.verified
    yield f"moved: {outcome.source} to {outcome.target}"
    yield (
        f"{carried.packs} packs and {carried.records} records: {carried.copied} copied now,"
        f" {carried.copied_bytes / MIB:.1f} MiB, and {carried.known} before"
    )
    rows = sum(table.rows for table in outcome.tables.values())
    read = f"{verified.read} of them read, {verified.read_bytes / MIB:.1f} MiB"
    yield f"verified: {rows} rows, {verified.blobs} blobs, {read}"
    found = {
        "chunks are damaged, and marked so": carried.damaged,
        "packs were already missing": carried.packs_missing,
        "chunks or records could not be verified: no key, or a newer version wrote them": carried.unjudged,
        "records are missing or damaged: `cryo repair` at the new place rewrites them": carried.records_bad,
        "records could not be written, because a key is missing": outcome.records_due,
        "keys cannot be opened with this keyring": len(outcome.keys_missing),
    }
    yield from (f"{count} {finding}" for finding, count in found.items() if count)
    yield from (f"  {example}" for example in (carried.examples + outcome.keys_missing)[:SHOWN_MAX])


def _next(outcome: MigrationResult, target: MigrationStore, keyring: str) -> Iterator[str]:
    from cryostore.maintenance.migrate.stores import DirectoryStore

    if isinstance(target, DirectoryStore):
        yield f"next: copy the keyring ({keyring}) to {outcome.target}/keyring.json, or name it with --keyring; then"
        yield f"  cryo serve --data-dir {outcome.target}"
    else:
        yield f"next: give every node the same keyring ({keyring}) and start it; access keys stay the same:"
        catalog, blobs = shlex.quote(target.place.shown_catalog), shlex.quote(target.place.shown_blobs)
        yield f"  cryo serve --catalog {catalog} --blobs {blobs} --keyring PLACE"
    yield f"{outcome.source} is kept and cannot be opened any more: remove it once the new store works"
