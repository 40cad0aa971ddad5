"""`cryo restore`: restore files and folders of a recovery point, or a single file, a stream or a disk."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output, progress
from cryostore.cli.agent_key_option import note_unproved
from cryostore.cli.agent_store import AGENT_STORE_OPTIONS, AgentStore, agent_store_options, open_agent_store
from cryostore.cli.entry_facts import path_facts, say_issues
from cryostore.cli.exit_codes import EPILOGUE, OK, WITH_ISSUES
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.core.quantities import size_text

if TYPE_CHECKING:
    from cryostore.agent.archive.reader import Archive
    from cryostore.agent.report import Report
    from cryostore.agent.restore.tree_restore import Mark, Matches

ACTIONS = {"+": "create", "C": "replace", "-": "delete"}
STDOUT = b"-"


@click.command("restore", epilog=EPILOGUE)
@click.argument("point", metavar="POINT[:PATH]")
@click.argument("target", type=click.Path(path_type=bytes))
@click.option("--vault", default=None, help="Look for POINT only in this vault.")
@click.option("--resource", default=None, metavar="NAME", help="Look for POINT only among those of this resource.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only matching files, as in .gitignore; repeatable.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out matching files; repeatable.")
@click.option(
    "--overwrite",
    type=click.Choice(["never", "newer", "always", "changed"]),
    default="changed",
    show_default=True,
    help="Which existing files to replace; changed: those with another size or time.",
)
@click.option("--delete", is_flag=True, help="Delete files that the recovery point lacks from restored folders.")
@click.option("--numeric-owner", is_flag=True, help="Restore owners by number, not by name.")
@click.option("--dry-run", is_flag=True, help="Only count; change nothing.")
@click.option("--list", "listed", is_flag=True, help="With --dry-run: list all files to be written or deleted.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON lines.")
@agent_store_options
def command(point: str, target: bytes, as_json: bool, listed: bool, **options: Any) -> int:
    """Restore PATH of a recovery point, or all of it, into the folder TARGET.

    If PATH is a file, TARGET is the folder for it, or its new path DIR/NAME with the same NAME. A stream or a disk is
    restored to the file or device TARGET. A TARGET of `-` writes any single file to stdout.

    POINT is an ARN, an id, the beginning of one, or `latest`; `cryo points` lists them. PATH is relative to the folder
    that was backed up, or absolute. Nothing is written outside of TARGET. A file appears under its name only when it is
    complete. Files that cannot be written are reported, and the exit code is 1.

    --list marks new files with `+`, replaced ones with `C`, deleted ones with `-`.
    """
    from cryostore.agent.archive.listing import archive_path
    from cryostore.agent.archive.open_archive import open_archive
    from cryostore.agent.archive.recovery_points import find_point, split_point
    from cryostore.agent.errors import DAMAGE, TargetError
    from cryostore.agent.errors import shown as shown_path
    from cryostore.agent.report import Report
    from cryostore.agent.restore.tree_restore import TreeRestoreOptions, restore_tree

    if listed and not options["dry_run"]:
        raise click.UsageError("--list needs --dry-run")
    place = AgentStore(**{name: options.pop(name) for name in AGENT_STORE_OPTIONS})
    vault, resource = options.pop("vault"), options.pop("resource")
    options |= {name: _matches(options.pop(name)) for name in ("include", "exclude")}
    report = Report()
    name, path = split_point(point)
    try:
        with (
            open_agent_store(place) as call,
            open_archive(call, find_point(call, name, vault, resource), "restore") as archive,
        ):
            if _is_single_file(archive, target):
                if listed:
                    raise ConfigurationError("--list is only for files and folders")
                return _restore_single_file(archive, path, target, options, as_json=as_json)
            note_unproved(archive)
            if not (path or options["include"] or options["exclude"]):
                report.total_bytes = archive.header.file_bytes
            wanted = TreeRestoreOptions(target=target, path=archive_path(archive, path), **options)
            if wanted.delete:
                _check_whole_folder(archive, wanted.path)
            wanted = replace(wanted, target=_target_folder(archive, wanted.path, target))
            with (
                progress.shown(report, quiet=as_json, done=progress.bytes_done),
                progress.interrupted("complete files stay; the next run continues from there"),
            ):
                on_entry = partial(_show_path, as_json=as_json) if listed else None
                try:
                    restore_tree(archive, wanted, report, on_entry=on_entry)
                except DAMAGE as error:
                    report.issue(wanted.path, f"the rest of its listing cannot be read: {error.message}")
    except TargetError as error:
        hint = "check that there is enough space and that this user may write there"
        raise CryostoreError(f"{shown_path(error.path)}: {error.reason}", hint=hint) from None
    return _show_result(report, as_json=as_json, dry_run=options["dry_run"])


def _is_single_file(archive: Archive, target: bytes) -> bool:
    """Return whether one file is restored: to stdout, or from a recovery point of a stream or a disk."""
    from cryostore.agent.header import FILESET

    return target == STDOUT or archive.header.kind != FILESET


def _restore_single_file(archive: Archive, path: str, target: bytes, options: dict[str, Any], *, as_json: bool) -> int:
    """Restore one file to a file, a device or stdout, and return the exit code. Raises TargetError and CryostoreError.

    Prints no result for stdout: nothing but the content may go there.
    """
    from cryostore.agent.archive.chunks import ChunkCache
    from cryostore.agent.archive.files import ArchiveFiles
    from cryostore.agent.report import Report
    from cryostore.agent.restore.single_file_restore import SingleFileRestoreOptions, restore_file
    from cryostore.cli.agent.cat import write_file

    if options["include"] or options["exclude"] or options["delete"]:
        raise ConfigurationError("--include, --exclude and --delete are only for files and folders")
    report = Report()
    with closing(ChunkCache()) as cache:
        files = ArchiveFiles(archive, cache)
        if target == STDOUT:
            return write_file(files, path, sys.stdout.fileno())
        wanted = SingleFileRestoreOptions(target=target, overwrite=options["overwrite"], dry_run=options["dry_run"])
        with progress.shown(report, quiet=as_json):
            restore_file(files, files.file(path), wanted, report)
    for reason in report.skipped:
        output.tell(reason)
    return _show_result(report, as_json=as_json, dry_run=options["dry_run"])


def _show_path(mark: Mark, path: bytes, *, as_json: bool) -> None:
    """Print an entry that a dry run would write or delete."""
    from cryostore.agent.errors import shown as shown_path

    if as_json:
        output.say({"type": "entry", "action": ACTIONS[mark]} | path_facts(path))
    else:
        output.show(f"{mark} {shown_path(path)}")


def _target_folder(archive: Archive, path: bytes, target: bytes) -> bytes:
    """Return the folder to restore into. If TARGET is the new path of a single file, that is its parent folder.

    Raises ConfigurationError if a file is to be restored where something else stands.
    """
    from cryostore.agent.archive.listing import ArchiveTree

    place = Path(os.fsdecode(target))
    if not path or place.is_dir():
        return target
    is_same_name = os.fsencode(place.name) == path.rpartition(b"/")[2] and not target.endswith(b"/")
    if not is_same_name and not os.path.lexists(target):
        return target
    entry = ArchiveTree(archive).find(path)
    if entry is None or entry.row.is_directory:
        return target
    if is_same_name:
        return os.fsencode(place.parent)
    raise ConfigurationError(
        f"{os.fsdecode(target)!a} is not a folder, and its name is not that of the file",
        hint="give a folder, or a path that ends in the name of the file; `cryo cat POINT:PATH` writes to stdout",
    )


def _check_whole_folder(archive: Archive, path: bytes) -> None:
    """Raise ConfigurationError if only parts of the folder were backed up.

    The backup never looked at the other files in it: they were not removed since.
    """
    from cryostore.agent.errors import shown

    for part in archive.header.only or ():
        if not path or part.startswith(path + b"/"):
            raise ConfigurationError(
                "only parts of this folder were backed up, and --delete would delete everything else in it",
                hint=f"restore each part separately: POINT:{shown(part)}, and so on",
            )


def _show_result(report: Report, *, as_json: bool, dry_run: bool) -> int:
    """Print issues and result. Return the exit code."""
    say_issues(report, as_json=as_json)
    if as_json:
        output.say(facts(report))
    else:
        output.show_text(words(report, dry_run=dry_run))
    return WITH_ISSUES if report.issue_count else OK


def _matches(lines: tuple[str, ...]) -> Matches | None:
    from cryostore.agent.source.selection import Patterns, literal_start

    if not lines:
        return None
    patterns = Patterns(map(literal_start, lines))
    return lambda path, is_directory: patterns.fit(path, is_directory=is_directory)


def words(report: Report, *, dry_run: bool) -> str:
    """Return the result for people."""
    would = "would be " if dry_run else ""
    lines = [
        f"{report.files} files, {report.directories} folders, {size_text(report.file_bytes)}",
        f"{report.new} {would}restored, {report.unchanged} left as they are, {report.deleted} {would}deleted",
    ]
    if report.issue_count:
        lines.append(f"{report.issue_count} issues: the restore is incomplete")
    return output.paragraph(lines)


def facts(report: Report) -> dict[str, Any]:
    """Return the result for programs."""
    return {
        "type": "summary",
        "files": report.files,
        "directories": report.directories,
        "bytes": report.file_bytes,
        "restored": report.new,
        "restored_bytes": report.new_bytes,
        "unchanged": report.unchanged,
        "deleted": report.deleted,
        "issues": report.issue_count,
    }
