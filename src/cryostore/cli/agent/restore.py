"""`cryo restore`: put files and folders of a recovery point back."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output, progress
from cryostore.cli.agent import stream_options as single_file
from cryostore.cli.agent_key_option import note_unproved
from cryostore.cli.agent_store import AGENT_STORE_OPTIONS, AgentStore, agent_store_options, open_agent_store
from cryostore.cli.entry_facts import path_facts, say_issues
from cryostore.cli.exit_codes import EPILOGUE, OK
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.core.quantities import size_text

if TYPE_CHECKING:
    from cryostore.agent.archive.reader import Archive
    from cryostore.agent.report import Report
    from cryostore.agent.restore.tree_restore import Mark, Matches

WITH_ISSUES = 1
ACTIONS = {"+": "create", "C": "replace", "-": "delete"}


@click.command("restore", epilog=EPILOGUE)
@click.argument("point", metavar="POINT[:PATH]")
@click.argument("target", type=click.Path(path_type=bytes))
@click.option("--vault", default=None, help="Look for POINT in this vault alone.")
@click.option("--resource", default=None, metavar="NAME", help="Look for POINT among those of this resource.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only what this names, as .gitignore says it.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Not what this names; repeatable.")
@click.option(
    "--overwrite",
    type=click.Choice(["never", "newer", "always", "changed"]),
    default="changed",
    show_default=True,
    help="What to do about files that are there: changed replaces those of another size or time.",
)
@click.option("--delete", is_flag=True, help="Remove what the recovery point does not have from restored folders.")
@click.option("--numeric-owner", is_flag=True, help="Owners by number, not by name.")
@click.option("--dry-run", is_flag=True, help="Change nothing; only count.")
@click.option("--list", "listed", is_flag=True, help="With --dry-run: name all that would be written or deleted.")
@click.option("--json", "as_json", is_flag=True, help="Say the outcome as lines of JSON.")
@agent_store_options
def command(point: str, target: bytes, as_json: bool, listed: bool, **options: Any) -> int:
    """Put what is at PATH in a recovery point, or all of it, into the folder TARGET.

    If PATH is a file, TARGET is the folder it goes into, or its own place: DIR/NAME, with the same NAME. A stream or a
    disk goes to the file or the device TARGET, as does any single file to `-`, which is stdout.

    POINT is an ARN, an id, the beginning of one, or `latest`; `cryo points` lists them. PATH is taken from the folder
    that was backed up, or from the top of the file system. Nothing is written outside of TARGET. A file takes its place
    when it is complete. What cannot be written is named and counted, and the exit code is 1.

    --list says `+` of what would be made, `C` of what would take the place of what is there, `-` of what would go.
    """
    from cryostore.agent.archive.listing import archive_path
    from cryostore.agent.archive.open_archive import open_archive
    from cryostore.agent.archive.recovery_points import find_point, split_point
    from cryostore.agent.errors import DAMAGE, TargetError
    from cryostore.agent.errors import shown as shown_path
    from cryostore.agent.report import Report
    from cryostore.agent.restore.tree_restore import TreeRestoreOptions, restore_tree

    if listed and not options["dry_run"]:
        raise click.UsageError("--list goes with --dry-run")
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
            if single_file.restores_one(archive, target):
                if listed:
                    raise ConfigurationError("--list is for files and folders alone")
                return _said(single_file.restore_one(archive, path, target, options, as_json=as_json), options, as_json)
            note_unproved(archive)
            if not (path or options["include"] or options["exclude"]):
                report.total_bytes = archive.header.file_bytes
            wanted = TreeRestoreOptions(target=target, path=archive_path(archive, path), **options)
            if wanted.delete:
                _refuse_to_delete_around(archive, wanted.path)
            wanted = replace(wanted, target=_folder(archive, wanted.path, target))
            with (
                progress.shown(report, quiet=as_json, done=progress.bytes_done),
                progress.interrupted("files that are complete stay; the next run goes on from there"),
            ):
                try:
                    restore_tree(archive, wanted, report, on_entry=partial(_name, as_json=as_json) if listed else None)
                except DAMAGE as error:
                    report.issue(wanted.path, f"its catalog cannot be read any further: {error.message}")
    except TargetError as error:
        hint = "see whether there is room, and whether this user may write there"
        raise CryostoreError(f"{shown_path(error.path)}: {error.reason}", hint=hint) from None
    return _said(report, options, as_json)


def _name(mark: Mark, path: bytes, *, as_json: bool) -> None:
    """Name an entry that would be written or deleted."""
    from cryostore.agent.errors import shown as shown_path

    if as_json:
        output.say({"type": "entry", "action": ACTIONS[mark]} | path_facts(path))
    else:
        output.show(f"{mark} {shown_path(path)}")


def _folder(archive: Archive, path: bytes, target: bytes) -> bytes:
    """The folder that something is restored into: of a file whose own place is named, the folder that has this place.

    Raises ConfigurationError if a file is to go where something else stands.
    """
    from cryostore.agent.archive.tree import ArchiveTree

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
        f"{os.fsdecode(target)!a} is no folder, and has another name than the file",
        hint="name the folder it goes into, or its own place; `cryo cat POINT:PATH` writes it to stdout",
    )


def _refuse_to_delete_around(archive: Archive, path: bytes) -> None:
    """Raise ConfigurationError if a folder is to be restored of which only parts were backed up.

    What else is in it was never asked about: it is not what somebody removed since.
    """
    from cryostore.agent.errors import shown

    for part in archive.header.only or ():
        if not path or part.startswith(path + b"/"):
            raise ConfigurationError(
                "only parts of this folder were backed up, and --delete would remove all else",
                hint=f"restore each of them by itself: POINT:{shown(part)}, and so on",
            )


def _said(report: Report | int, options: dict[str, Any], as_json: bool) -> int:
    if isinstance(report, int):  # it went to stdout, and nothing else may
        return report
    say_issues(report, as_json=as_json)
    if as_json:
        output.say(facts(report))
    else:
        output.show_text(words(report, dry_run=options["dry_run"]))
    return WITH_ISSUES if report.issue_count else OK


def _matches(lines: tuple[str, ...]) -> Matches | None:
    from cryostore.agent.source.patterns import Patterns, literal_start

    if not lines:
        return None
    patterns = Patterns(map(literal_start, lines))
    return lambda path, is_directory: patterns.fit(path, is_directory=is_directory)


def words(report: Report, *, dry_run: bool) -> str:
    """The outcome for people."""
    would = "would be " if dry_run else ""
    lines = [
        f"{report.files} files, {report.directories} folders, {size_text(report.file_bytes)}",
        f"{report.new} {would}restored, {report.unchanged} left as they are, {report.deleted} {would}deleted",
    ]
    if report.issue_count:
        lines.append(f"{report.issue_count} issues: not all was restored")
    return output.paragraph(lines)


def facts(report: Report) -> dict[str, Any]:
    """The outcome for programs."""
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
