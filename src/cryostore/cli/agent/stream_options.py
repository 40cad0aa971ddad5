"""What is backed up instead of files and folders, and restored: a stream, the output of a command, a disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output, progress
from cryostore.cli.agent_store import AgentStore, open_agent_store
from cryostore.core.errors import ConfigurationError, CryostoreError

if TYPE_CHECKING:
    from cryostore.agent.archive.reader import Archive
    from cryostore.agent.backup.run import Outcome
    from cryostore.agent.backup.unfinished import Unfinished
    from cryostore.agent.report import Report
    from cryostore.agent.streams.single_file import Options
    from cryostore.model.operation import Call

    Run = Callable[[Call, Report, Unfinished | None], Outcome]

SOURCES = ("stdin", "shell_command", "from_command", "device")
STDOUT = b"-"
OF_TREES = (
    "files_from",
    "exclude",
    "exclude_file",
    "exclude_if_present",
    "exclude_caches",
    "exclude_larger_than",
    "one_file_system",
    "dry_run",
)


def single_file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name such a source, and `--name`."""
    for option in (
        click.option("--name", default=None, help="What a stream is called in its recovery point."),
        click.option("--device", default=None, metavar="DISK", help="Back up a block device, or a disk image."),
        click.option(
            "--stdin-from-command", "from_command", is_flag=True, help="PATH... is a command; back up its output."
        ),
        click.option(
            "--command",
            "shell_command",
            default=None,
            metavar="LINE",
            help="Back up what this line of shell writes to stdout. If it fails, no recovery point is made.",
        ),
        click.option("--stdin", is_flag=True, help="Back up standard input. Prefer --command: it sees a failure."),
    ):
        command = option(command)
    return command


def asked(options: dict[str, Any]) -> bool:
    """Whether the command line names such a source."""
    return any(options[source] for source in SOURCES)


def without(paths: tuple[bytes, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The options of a backup of files and folders. Raises if there are none, or if one of these was given."""
    if not paths:
        raise click.UsageError("nothing to back up: name a PATH, or --stdin, --command or --device")
    if options["name"]:
        raise ConfigurationError("--name is for a stream or a disk", hint="say --resource to name what is backed up")
    return {name: value for name, value in options.items() if name not in (*SOURCES, "name")}


def back_up(
    paths: tuple[bytes, ...], options: dict[str, Any], place: AgentStore, *, as_json: bool
) -> tuple[Report, Outcome]:
    """Carry out such a backup. Raises ConfigurationError for what cannot be meant, CryostoreError if it fails."""
    from cryostore.agent.backup.unfinished import noted
    from cryostore.agent.errors import SourceError
    from cryostore.agent.errors import shown as shown_path
    from cryostore.agent.report import Report
    from cryostore.cli.agent.backup import notes_folder

    wanted, run = _plan(paths, options, place)
    report = Report()
    try:
        with (
            noted(notes_folder(), place.name, wanted.vault, f"{wanted.kind}:{wanted.resource}") as unfinished,
            open_agent_store(place, create=True) as call,
            progress.shown(report, quiet=as_json),
            progress.interrupted("no recovery point was made"),
        ):
            return report, run(call, report, unfinished)
    except SourceError as error:
        hint = "put that right, and repeat the backup: nothing was stored"
        raise CryostoreError(f"{shown_path(error.path)}: {error.reason}", hint=hint) from None


def _plan(paths: tuple[bytes, ...], options: dict[str, Any], store: AgentStore) -> tuple[Options, Run]:
    from cryostore.agent.header import DISK, STREAM
    from cryostore.agent.streams.command import in_shell
    from cryostore.agent.streams.stream import backup_stream

    if len([source for source in SOURCES if options[source]]) > 1:
        raise ConfigurationError("--stdin, --command, --stdin-from-command and --device exclude each other")
    if bool(paths) != bool(options["from_command"]):
        hint = "behind --stdin-from-command goes a command, and with no other source goes a PATH"
        raise ConfigurationError("a stream or a disk is backed up on its own, without PATH", hint=hint)
    for name in OF_TREES:
        if options[name]:
            raise ConfigurationError(f"--{name.replace('_', '-')} is for files and folders alone")
    if device := options["device"]:
        from cryostore.agent.streams.device import backup_device

        path, place = os.fsencode(device), Path(device).absolute()
        wanted = _options(DISK, options, options["name"] or place.name, str(place), store)
        named = partial(_named, wanted, options)
        return wanted, lambda call, report, note: backup_device(call, named(call), path, report, unfinished=note)
    if not options["name"]:
        raise ConfigurationError("a stream has no name of its own", hint="say --name dump.sql, for example")
    if options["stdin"] and sys.stdin.isatty():
        raise ConfigurationError("standard input is a terminal", hint="pipe something into `cryo backup --stdin`")
    source: int | list[str] = sys.stdin.fileno()
    if options["from_command"]:
        source = [os.fsdecode(path) for path in paths]
    elif options["shell_command"]:
        source = in_shell(options["shell_command"])
    wanted = _options(STREAM, options, options["name"], options["name"], store)
    named = partial(_named, wanted, options)
    return wanted, lambda call, report, note: backup_stream(call, named(call), source, report, unfinished=note)


def _named(wanted: Options, options: dict[str, Any], call: Call) -> Options:
    """The same, under a name that shows nothing if there is a key and no name was given."""
    from cryostore.agent.encryption.keyed_call import resource_for

    return wanted if options["resource"] else replace(wanted, resource=resource_for(call, wanted.resource))


def _options(kind: str, options: dict[str, Any], name: str, of: str, store: AgentStore) -> Options:
    from cryostore.agent.streams.single_file import Options
    from cryostore.cli.agent.backup import tag_of

    resource = options["resource"] or f"{os.uname().nodename}:{of}"
    if not resource.isprintable():
        raise ConfigurationError("this name cannot be written down", hint="say --resource NAME")
    tags = dict(tag_of(text) for text in options["tags"])
    return Options(
        kind=kind,
        name=os.fsencode(name),
        vault=options["vault"],
        resource=resource,
        tags=tags,
        wait_seconds=store.server_wait,
    )


def restores_one(archive: Archive, target: bytes) -> bool:
    """Whether a restore is of one file: to stdout, or from a recovery point that is one."""
    from cryostore.agent.header import FILESET

    return target == STDOUT or archive.header.kind != FILESET


def restore_one(archive: Archive, path: str, target: bytes, options: dict[str, Any], *, as_json: bool) -> Report | int:
    """Restore one file to a file, a device or stdout; for the last, return the exit code. Raises as a restore does."""
    from cryostore.agent.archive.chunk_cache import ChunkCache
    from cryostore.agent.archive.files import ArchiveFiles
    from cryostore.agent.report import Report
    from cryostore.agent.restore.single_file_restore import SingleFileRestoreOptions, restore_file
    from cryostore.cli.agent.cat import write

    if options["include"] or options["exclude"] or options["delete"]:
        raise ConfigurationError("--include, --exclude and --delete are for files and folders alone")
    report = Report()
    with closing(ChunkCache()) as cache:
        files = ArchiveFiles(archive, cache)
        if target == STDOUT:
            return write(files, path, sys.stdout.fileno())
        wanted = SingleFileRestoreOptions(target=target, overwrite=options["overwrite"], dry_run=options["dry_run"])
        with progress.shown(report, quiet=as_json):
            restore_file(files, files.file(path), wanted, report)
    for reason in report.skipped:
        output.tell(reason)
    return report
