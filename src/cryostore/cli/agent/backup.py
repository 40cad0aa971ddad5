"""`cryo backup`: make a recovery point of files and folders, of a stream or of a disk."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output, progress
from cryostore.cli.agent import stream_backup
from cryostore.cli.agent.backup_options import paths_in, stores_in, tree_options
from cryostore.cli.agent.stream_backup import stream_options
from cryostore.cli.agent_store import (
    AGENT_STORE_OPTIONS,
    AgentStore,
    agent_store_options,
    open_agent_store,
    recommend_key,
)
from cryostore.cli.entry_facts import path_facts, say_issues
from cryostore.cli.exit_codes import EPILOGUE, OK, WITH_ISSUES
from cryostore.cli.user_state import state_folder
from cryostore.core.errors import CryostoreError
from cryostore.core.process_resources import raise_open_file_limit
from cryostore.core.quantities import size_text

if TYPE_CHECKING:
    from cryostore.agent.backup.run import BackupResult
    from cryostore.agent.report import Report


@click.command("backup", epilog=EPILOGUE)
@click.argument("paths", metavar="PATH...", nargs=-1, type=click.Path(path_type=bytes))
@stream_options
@click.option("--files-from", multiple=True, metavar="FILE", help="Read more paths from FILE, ended by LF or NUL.")
@click.option("--vault", default="Default", show_default=True, help="The vault of the recovery point.")
@click.option("--resource", default=None, metavar="NAME", help="Name of the backup; HOST:PATH or hidden by default.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out files, as in .gitignore; repeatable.")
@click.option("--exclude-file", multiple=True, type=click.Path(path_type=Path), help="Read such patterns from a file.")
@click.option("--exclude-if-present", multiple=True, metavar="NAME", help="Leave out folders that hold a file NAME.")
@click.option("--exclude-caches", is_flag=True, help="Leave out folders with a valid CACHEDIR.TAG.")
@click.option("--exclude-larger-than", default=None, metavar="SIZE", help="Leave out larger files: 500K, 20M, 1.5G.")
@click.option("--one-file-system", is_flag=True, help="Stay on the file system of each PATH.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Tag the recovery point; repeatable.")
@click.option("--dry-run", is_flag=True, help="Only count; store nothing. Needs no store.")
@click.option("--list", "listed", is_flag=True, help="With --dry-run: list all entries of the backup.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON lines.")
@agent_store_options
def command(paths: tuple[bytes, ...], as_json: bool, listed: bool, **options: Any) -> int:
    """Back up each PATH into one recovery point; or a stream, the output of a command, or a disk.

    Files that have not changed since the last backup are not opened. Files that cannot be read are reported and left
    out; the rest is backed up, and the exit code is 1. If the store fails, no recovery point is made and the exit code
    is 2. A directory given with --data-dir becomes a store if it is not one yet.
    """
    from cryostore.agent.backup.job import locked_note
    from cryostore.agent.backup.run import backup_tree, dry_run
    from cryostore.agent.encryption.keyed_call import resource_for
    from cryostore.agent.errors import SourceError
    from cryostore.agent.errors import shown as shown_path
    from cryostore.agent.report import Report

    place = AgentStore(**{name: options.pop(name) for name in AGENT_STORE_OPTIONS})
    if listed and not options["dry_run"]:
        raise click.UsageError("--list needs --dry-run")
    recommend_key(place)
    if stream_backup.has_stream_source(options):
        report, result = stream_backup.back_up(paths, options, place, as_json=as_json)
        return _show_result(report, result, as_json=as_json, dry_run=False)
    named = options["resource"]
    report = Report()
    from_files = tuple(path for file in options.pop("files_from") for path in paths_in(file))
    tree_only = stream_backup.without_stream_options((*paths, *from_files), options)
    wanted = tree_options(paths, from_files, report, **tree_only)
    wanted = replace(wanted, stores=stores_in(wanted.root, place.data_dir))
    raise_open_file_limit()
    try:
        if wanted.dry_run:
            result = dry_run(wanted, report, partial(_show_path, as_json=as_json) if listed else None)
            return _show_result(report, result, as_json=as_json, dry_run=True)
        with (
            locked_note(state_folder(), place.name, wanted.vault, wanted.resource) as note,
            open_agent_store(place, create=True) as call,
            progress.shown(report, quiet=as_json, done=progress.bytes_done),
        ):
            wanted = replace(wanted, wait_seconds=place.server_wait)
            wanted = wanted if named else replace(wanted, resource=resource_for(call, wanted.resource))
            with progress.interrupted("no recovery point was made; the next run resumes this one"):
                result = backup_tree(call, wanted, report, note=note)
    except SourceError as error:
        hint = "check that it exists and that this user may read it"
        raise CryostoreError(f"{shown_path(error.path)}: {error.reason}", hint=hint) from None
    return _show_result(report, result, as_json=as_json, dry_run=False)


def _show_path(path: bytes, *, as_json: bool) -> None:
    """Print an entry of a dry run."""
    from cryostore.agent.errors import shown as shown_path

    if as_json:
        output.say({"type": "entry"} | path_facts(path))
    else:
        output.show(shown_path(path))


def _show_result(report: Report, result: BackupResult, *, as_json: bool, dry_run: bool) -> int:
    """Print issues and result. Return the exit code."""
    say_issues(report, as_json=as_json)
    if as_json:
        output.say(facts(report, result))
    else:
        output.show_text(words(report, result, dry_run=dry_run))
    return WITH_ISSUES if report.issue_count else OK


def words(report: Report, result: BackupResult, *, dry_run: bool) -> str:
    """Return the result for people."""
    lines = []
    if result.recovery_point_arn:
        lines.append(f"recovery point {result.recovery_point_arn.rpartition(':')[2]}")
    lines.append(f"{report.files} files, {report.directories} folders, {size_text(report.file_bytes)}")
    if not dry_run:
        lines.append(f"{report.new} new, {report.changed} changed, {report.unchanged} unchanged")
        read, sent = map(size_text, (report.read_bytes, report.sent_bytes))
        lines.append(f"{read} read, {sent} new to the store and sent")
    lines += [f"skipped: {count}, {reason}" for reason, count in sorted(report.skipped.items())]
    if report.damaged_objects:
        lines.append(f"{report.damaged_objects} objects of the last backup are damaged in the store: sent again")
    if report.issue_count:
        lines.append(f"{report.issue_count} issues: the backup is incomplete")
    return output.paragraph(lines)


def facts(report: Report, result: BackupResult) -> dict[str, Any]:
    """Return the result for programs."""
    return {
        "type": "summary",
        "RecoveryPointArn": result.recovery_point_arn,
        "BaseRecoveryPointArn": result.base_arn,
        "same": result.same,
        "files": report.files,
        "directories": report.directories,
        "bytes": report.file_bytes,
        "new": report.new,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "read_bytes": report.read_bytes,
        "sent_bytes": report.sent_bytes,
        "skipped": dict(report.skipped),
        "damaged_objects": report.damaged_objects,
        "issues": report.issue_count,
    }
