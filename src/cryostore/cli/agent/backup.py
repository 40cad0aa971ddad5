"""`cryo backup`: make a recovery point of files and folders."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import category

import click

from cryostore.cli import output, progress
from cryostore.cli.agent import stream_options as single_file
from cryostore.cli.agent.stream_options import single_file_options
from cryostore.cli.agent_store import (
    AGENT_STORE_OPTIONS,
    AgentStore,
    agent_store_options,
    open_agent_store,
    recommend_key,
)
from cryostore.cli.entry_facts import path_facts, say_issues
from cryostore.cli.exit_codes import EPILOGUE, OK
from cryostore.cli.quantities import size_bytes
from cryostore.cli.user_state import state_folder
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.core.open_files import raise_open_file_limit
from cryostore.core.quantities import size_text

if TYPE_CHECKING:
    from cryostore.agent.backup.run import Options, Outcome
    from cryostore.agent.report import Report
    from cryostore.agent.source.selection import Selection

WITH_ISSUES = 1
NAME_BYTES_MAX = 1024
NO_NAMES_HAVE = ("Cc", "Cs")
"""Control characters, and bytes that are no UTF-8: the store refuses them, but only when all has been sent."""


@click.command("backup", epilog=EPILOGUE)
@click.argument("paths", metavar="PATH...", nargs=-1, type=click.Path(path_type=bytes))
@single_file_options
@click.option("--files-from", multiple=True, metavar="FILE", help="The paths in FILE, too: in lines, or ended by NUL.")
@click.option("--vault", default="Default", show_default=True, help="Where the recovery point goes.")
@click.option("--resource", default=None, metavar="NAME", help="What this is; HOST:PATH, or hidden, if left out.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out, as .gitignore says it; repeatable.")
@click.option("--exclude-file", multiple=True, type=click.Path(path_type=Path), help="A file of such patterns.")
@click.option("--exclude-if-present", multiple=True, metavar="NAME", help="Leave out what is beside a file NAME.")
@click.option("--exclude-caches", is_flag=True, help="Leave out what is beside a CACHEDIR.TAG with its signature.")
@click.option("--exclude-larger-than", default=None, metavar="SIZE", help="Leave out larger files: 500K, 20M, 1.5G.")
@click.option("--one-file-system", is_flag=True, help="Stay on the file system of each PATH.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag of the recovery point; repeatable.")
@click.option("--dry-run", is_flag=True, help="Store nothing; only count. Needs no store.")
@click.option("--list", "listed", is_flag=True, help="With --dry-run: name all that would be backed up.")
@click.option("--json", "as_json", is_flag=True, help="Say the outcome as lines of JSON.")
@agent_store_options
def command(paths: tuple[bytes, ...], as_json: bool, listed: bool, **options: Any) -> int:
    """Back up each PATH into one recovery point; or a stream, the output of a command, a disk.

    Files that have not changed since the last one are not opened. What cannot be read is named, counted and left out;
    the rest is backed up, and the exit code is 1. If the store fails, no recovery point is made and the exit code is 2.
    A directory given with --data-dir becomes a store if it is none.
    """
    from cryostore.agent.backup.run import backup, dry_run
    from cryostore.agent.backup.unfinished import noted
    from cryostore.agent.encryption.keyed_call import resource_for
    from cryostore.agent.errors import SourceError
    from cryostore.agent.errors import shown as shown_path
    from cryostore.agent.report import Report

    place = AgentStore(**{name: options.pop(name) for name in AGENT_STORE_OPTIONS})
    if listed and not options["dry_run"]:
        raise click.UsageError("--list goes with --dry-run")
    recommend_key(place)
    if single_file.asked(options):
        report, outcome = single_file.back_up(paths, options, place, as_json=as_json)
        return _said(report, outcome, as_json=as_json, dry_run=False)
    named = options["resource"]
    report = Report()
    from_files = tuple(path for file in options.pop("files_from") for path in _paths(file))
    wanted = _options(paths, from_files, report, **single_file.without((*paths, *from_files), options))
    wanted = replace(wanted, stores=_stores(wanted.root, place.data_dir))
    raise_open_file_limit()
    try:
        if wanted.dry_run:
            outcome = dry_run(wanted, report, partial(_name, as_json=as_json) if listed else None)
            return _said(report, outcome, as_json=as_json, dry_run=True)
        with (
            noted(notes_folder(), place.name, wanted.vault, wanted.resource) as unfinished,
            open_agent_store(place, create=True) as call,
            progress.shown(report, quiet=as_json, done=progress.bytes_done),
        ):
            wanted = replace(wanted, wait_seconds=place.server_wait)
            wanted = wanted if named else replace(wanted, resource=resource_for(call, wanted.resource))
            with progress.interrupted("no recovery point was made; the next run goes on from what the store has"):
                outcome = backup(call, wanted, report, unfinished=unfinished)
    except SourceError as error:
        hint = "see whether it is there, and whether this user may read it"
        raise CryostoreError(f"{shown_path(error.path)}: {error.reason}", hint=hint) from None
    return _said(report, outcome, as_json=as_json, dry_run=False)


def _name(path: bytes, *, as_json: bool) -> None:
    """Name an entry that would be backed up."""
    from cryostore.agent.errors import shown as shown_path

    if as_json:
        output.say({"type": "entry"} | path_facts(path))
    else:
        output.show(shown_path(path))


def _said(report: Report, outcome: Outcome, *, as_json: bool, dry_run: bool) -> int:
    say_issues(report, as_json=as_json)
    if as_json:
        output.say(facts(report, outcome))
    else:
        output.show_text(words(report, outcome, dry_run=dry_run))
    return WITH_ISSUES if report.issue_count else OK


def notes_folder() -> str | None:
    """Where this user's unfinished runs are noted."""
    folder = state_folder()
    return str(folder) if folder else None


def _options(
    paths: tuple[bytes, ...],
    listed: tuple[bytes, ...],
    report: Report,
    *,
    vault: str,
    resource: str | None,
    exclude: tuple[str, ...],
    exclude_file: tuple[Path, ...],
    exclude_if_present: tuple[str, ...],
    exclude_caches: bool,
    exclude_larger_than: str | None,
    one_file_system: bool,
    tags: tuple[str, ...],
    dry_run: bool,
) -> Options:
    from cryostore.agent.backup.run import Options
    from cryostore.agent.source.patterns import literal_start
    from cryostore.agent.source.roots import rooted

    if resource is not None and (not resource or any(category(each) in NO_NAMES_HAVE for each in resource)):
        raise ConfigurationError(f"--resource {resource!a} is no name that can be written down")
    root, only = rooted(paths, listed)
    if one_file_system and only is not None and b"" in only:
        _refuse_what_would_be_left_out(root, (*paths, *listed))
    lines = [*map(literal_start, exclude), *(line for path in exclude_file for line in _lines(path))]
    larger = None if exclude_larger_than is None else size_bytes(exclude_larger_than)
    return Options(
        root=root,
        only=only,
        vault=vault,
        resource=resource or _resource(root, only),
        select=_selection(root, only, lines, larger, report) if lines or larger is not None else None,
        markers=frozenset(map(os.fsencode, exclude_if_present)),
        without_caches=exclude_caches,
        one_file_system=one_file_system,
        tags=dict(tag_of(tag) for tag in tags),
        dry_run=dry_run,
    )


def _refuse_what_would_be_left_out(root: bytes, paths: tuple[bytes, ...]) -> None:
    """Raise ConfigurationError if a PATH lies in another one, and on another file system."""
    top = Path(os.fsdecode(root)).stat()
    for path in paths:
        if os.path.lexists(path) and os.lstat(path).st_dev != top.st_dev:
            raise ConfigurationError(
                f"{os.fsdecode(path)!a} lies in another PATH, where --one-file-system leaves it out",
                hint="back it up by itself",
            )


def _stores(root: bytes, data_dir: Path | None) -> frozenset[bytes]:
    """Where in the tree the store is: a run must not read what it writes itself."""
    if data_dir is None:
        return frozenset()
    top, store = Path(os.fsdecode(root)).resolve(), data_dir.resolve()
    if top == store:
        raise ConfigurationError("a folder cannot be backed up into itself", hint="name another --data-dir")
    return frozenset({os.fsencode(store.relative_to(top))}) if store.is_relative_to(top) else frozenset()


def _selection(
    root: bytes, only: frozenset[bytes] | None, lines: list[str], larger: int | None, report: Report
) -> Selection:
    from cryostore.agent.source.selection import Selection

    return Selection(root, lines, larger, report.skipped, only=only)


def _resource(root: bytes, only: frozenset[bytes] | None) -> str:
    names = "" if only is None or b"" in only else ":" + ",".join(sorted(map(os.fsdecode, only)))
    name = f"{os.uname().nodename}:{os.fsdecode(root)}{names}"
    if not name.isprintable() or len(name.encode()) > NAME_BYTES_MAX:
        raise ConfigurationError("these paths give no name that can be written down", hint="say --resource NAME")
    return name


def tag_of(text: str) -> tuple[str, str]:
    """Key and value of a tag as the command line has it. Raises ConfigurationError."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigurationError(f"--tag {text!a} is not KEY=VALUE")
    return key, value


def _lines(path: Path) -> list[str]:
    """The patterns in a file, a line each as git splits them: no other character than LF ends one."""
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        return [os.fsdecode(line.removesuffix(b"\r")) for line in data.split(b"\n")]
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def _paths(file: str) -> list[bytes]:
    """The paths in a file, or on stdin if it is `-`: ended by NUL as `find -print0` has them, else by line."""
    try:
        with click.open_file(file, "rb") as opened:
            data: bytes = opened.read()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file!a}: {error.strerror}") from error
    found = [path for path in data.split(b"\0" if b"\0" in data else b"\n") if path]
    if not found:
        raise ConfigurationError(f"{file!a} names no PATH", hint="nothing would be backed up")
    return found


def words(report: Report, outcome: Outcome, *, dry_run: bool) -> str:
    """The outcome for people."""
    lines = []
    if outcome.recovery_point_arn:
        lines.append(f"recovery point {outcome.recovery_point_arn.rpartition(':')[2]}")
    lines.append(f"{report.files} files, {report.directories} folders, {size_text(report.file_bytes)}")
    if not dry_run:
        lines.append(f"{report.new} new, {report.changed} changed, {report.unchanged} unchanged")
        read, sent = map(size_text, (report.read_bytes, report.sent_bytes))
        lines.append(f"{read} read, {sent} new to the store and sent")
    lines += [f"skipped: {count}, {reason}" for reason, count in sorted(report.skipped.items())]
    if report.damaged_objects:
        lines.append(f"{report.damaged_objects} objects of the last backup are damaged in the store: sent again")
    if report.issue_count:
        lines.append(f"{report.issue_count} issues: not all was backed up")
    return output.paragraph(lines)


def facts(report: Report, outcome: Outcome) -> dict[str, Any]:
    """The outcome for programs."""
    return {
        "type": "summary",
        "RecoveryPointArn": outcome.recovery_point_arn,
        "BaseRecoveryPointArn": outcome.base_arn,
        "same": outcome.same,
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
