"""`cryo backup` of a stream, the output of a command, or a disk: its options and its run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import progress
from cryostore.cli.agent.backup_options import tag_of
from cryostore.cli.agent_store import AgentStore, open_agent_store
from cryostore.cli.user_state import state_folder
from cryostore.core.errors import ConfigurationError, CryostoreError

if TYPE_CHECKING:
    from cryostore.agent.backup.job import ResumeNote
    from cryostore.agent.backup.run import BackupResult
    from cryostore.agent.report import Report
    from cryostore.agent.streams.single_file import SingleFileOptions
    from cryostore.model.operation import Call

    Run = Callable[[Call, Report, ResumeNote | None], BackupResult]

SOURCES = ("stdin", "shell_command", "from_command", "device")
TREE_OPTIONS = (
    "files_from",
    "exclude",
    "exclude_file",
    "exclude_if_present",
    "exclude_caches",
    "exclude_larger_than",
    "one_file_system",
    "dry_run",
)


def stream_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a stream, a command or a disk, and `--name`."""
    for option in (
        click.option("--name", default=None, help="Name of the stream in its recovery point."),
        click.option("--device", default=None, metavar="DISK", help="Back up a block device or a disk image."),
        click.option(
            "--stdin-from-command", "from_command", is_flag=True, help="PATH... is a command; back up its output."
        ),
        click.option(
            "--command",
            "shell_command",
            default=None,
            metavar="LINE",
            help="Back up the standard output of a line of shell. If it fails, no recovery point is made.",
        ),
        click.option("--stdin", is_flag=True, help="Back up standard input. Prefer --command: it detects failures."),
    ):
        command = option(command)
    return command


def has_stream_source(options: dict[str, Any]) -> bool:
    """Return whether the command line names a stream, a command or a disk."""
    return any(options[source] for source in SOURCES)


def without_stream_options(paths: tuple[bytes, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a backup of files and folders.

    Raises click.UsageError without any PATH, and ConfigurationError if --name was given.
    """
    if not paths:
        raise click.UsageError("nothing to back up: give a PATH, or --stdin, --command or --device")
    if options["name"]:
        raise ConfigurationError("--name is for a stream or a disk", hint="use --resource to name the backup")
    return {name: value for name, value in options.items() if name not in (*SOURCES, "name")}


def back_up(
    paths: tuple[bytes, ...], options: dict[str, Any], place: AgentStore, *, as_json: bool
) -> tuple[Report, BackupResult]:
    """Back up a stream, a command's output or a disk.

    Raises ConfigurationError for options that do not fit together, and CryostoreError if the backup fails.
    """
    from cryostore.agent.backup.job import locked_note
    from cryostore.agent.errors import SourceError
    from cryostore.agent.errors import shown as shown_path
    from cryostore.agent.report import Report

    wanted, run = _plan(paths, options, place)
    report = Report()
    try:
        with (
            locked_note(state_folder(), place.name, wanted.vault, f"{wanted.kind}:{wanted.resource}") as note,
            open_agent_store(place, create=True) as call,
            progress.shown(report, quiet=as_json),
            progress.interrupted("no recovery point was made"),
        ):
            return report, run(call, report, note)
    except SourceError as error:
        hint = "correct the problem and repeat the backup: nothing was stored"
        raise CryostoreError(f"{shown_path(error.path)}: {error.reason}", hint=hint) from None


def _plan(paths: tuple[bytes, ...], options: dict[str, Any], store: AgentStore) -> tuple[SingleFileOptions, Run]:
    from cryostore.agent.header import DISK, STREAM
    from cryostore.agent.streams.stream import backup_stream, in_shell

    _check_options(paths, options)
    if device := options["device"]:
        from cryostore.agent.streams.device import backup_device

        path, place = os.fsencode(device), Path(device).absolute()
        wanted = _options(DISK, options, options["name"] or place.name, str(place), store)
        named = partial(_with_resource, wanted, options)
        return wanted, lambda call, report, note: backup_device(call, named(call), path, report, note=note)
    if not options["name"]:
        raise ConfigurationError("a stream needs a name", hint="give one, for example --name dump.sql")
    if options["stdin"] and sys.stdin.isatty():
        raise ConfigurationError("standard input is a terminal", hint="pipe data into `cryo backup --stdin`")
    source: int | list[str] = sys.stdin.fileno()
    if options["from_command"]:
        source = [os.fsdecode(path) for path in paths]
    elif options["shell_command"]:
        source = in_shell(options["shell_command"])
    wanted = _options(STREAM, options, options["name"], options["name"], store)
    named = partial(_with_resource, wanted, options)
    return wanted, lambda call, report, note: backup_stream(call, named(call), source, report, note=note)


def _check_options(paths: tuple[bytes, ...], options: dict[str, Any]) -> None:
    """Raise ConfigurationError for options that do not fit together."""
    if len([source for source in SOURCES if options[source]]) > 1:
        raise ConfigurationError("--stdin, --command, --stdin-from-command and --device exclude each other")
    if bool(paths) != bool(options["from_command"]):
        if paths:
            raise ConfigurationError(
                "a stream or a disk is backed up alone, without PATH", hint="run another backup for the PATHs"
            )
        raise ConfigurationError("--stdin-from-command needs a command", hint="put it after the options")
    for name in TREE_OPTIONS:
        if options[name]:
            raise ConfigurationError(f"--{name.replace('_', '-')} is only for files and folders")


def _with_resource(wanted: SingleFileOptions, options: dict[str, Any], call: Call) -> SingleFileOptions:
    """Return the options with a resource name that reveals nothing, if there is a key and no name was given."""
    from cryostore.agent.encryption.keyed_call import resource_for

    return wanted if options["resource"] else replace(wanted, resource=resource_for(call, wanted.resource))


def _options(kind: str, options: dict[str, Any], name: str, source_name: str, store: AgentStore) -> SingleFileOptions:
    from cryostore.agent.streams.single_file import SingleFileOptions

    resource = options["resource"] or f"{os.uname().nodename}:{source_name}"
    if not resource.isprintable():
        raise ConfigurationError(
            f"the resource name {resource!a} has unprintable characters", hint="give another with --resource NAME"
        )
    tags = dict(tag_of(text) for text in options["tags"])
    return SingleFileOptions(
        kind=kind,
        name=os.fsencode(name),
        vault=options["vault"],
        resource=resource,
        tags=tags,
        wait_seconds=store.server_wait,
    )
